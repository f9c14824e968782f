"""From pictures to a network that predicts their invertibility, and sweeps, by the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import toy_stylegan2

from saminv.cli import main
from saminv.generators import save_generator
from saminv.train import ErrorMaps

QUICK = ["--metric", "mse", "--encoder", "mean", "--device", "cpu"]
SPACES = ["--spaces", "W+", "F4", "F6"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a generator and pictures, and the errors of these."""
    folder = tmp_path_factory.mktemp("invertibility")
    save_generator(toy_stylegan2(), folder / "toy.safetensors")
    for number in range(10):
        path = folder / f"photos/{number % 2}/p{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    assert build(folder) == 0
    return folder


def build(folder: Path, *more: str) -> int:
    given = [
        "--images",
        str(folder / "photos"),
        "--out",
        str(folder / "errors"),
        "--generator",
        str(folder / "toy.safetensors"),
    ]
    return main(["invertibility", "build", *given, "--steps", "3", *QUICK, *SPACES, *more])


def train(folder: Path, out: Path, *more: str) -> int:
    given = ["--data", str(folder / "errors"), "--out", str(out), "--steps", "6", "--batch", "2"]
    return main(["invertibility", "train", *given, "--validation-share", "0.4", *more])


@pytest.fixture(scope="module")
def network(place):
    assert train(place, place / "net") == 0
    return place / "net/best.safetensors"


def test_errors_are_built_in_all_spaces_and_not_again(place, capsys):
    data = ErrorMaps(place / "errors")
    assert data.spaces == ("W+", "F4", "F6")
    assert len(data) == 10
    assert (data.metric, data.steps) == ("mse", 3)
    before = {path: path.stat().st_mtime_ns for path in (place / "errors").rglob("*.safetensors")}
    assert build(place) == 0
    assert capsys.readouterr().out.count("10 of 10 pictures done") == 3
    assert {path: path.stat().st_mtime_ns for path in (place / "errors").rglob("*.safetensors")} == before


def test_an_unreadable_picture_is_told_of(place, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    good = str(place / "photos/0/p0.png")
    generator = ["--generator", str(place / "toy.safetensors"), "--steps", "1", *QUICK, "--spaces", "W+"]
    code = main(["invertibility", "build", "--images", good, str(bad), "--out", str(tmp_path / "out"), *generator])
    assert code == 3
    assert "passed over bad" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--spaces", "W+", "N"], "no part in the allocation"),
        (["--spaces", "W+", "W+"], "twice"),
        (["--steps", "4"], "steps"),
    ],
)
def test_impossible_builds_are_refused(place, capsys, more, message):
    given = ["--images", str(place / "photos"), "--out", str(place / "errors"), "--steps", "3", *QUICK, *SPACES]
    assert main(["invertibility", "build", *given, "--generator", str(place / "toy.safetensors"), *more]) == 2
    assert message in capsys.readouterr().err


def test_a_network_is_trained_and_judged(place, network, tmp_path, capsys):
    given = ["--data", str(place / "errors"), "--out", str(tmp_path), "--generator", str(place / "toy.safetensors")]
    given += ["--segmenter", "slic", "--validation-share", "0.4", "--inversions", "2", "--steps", "2", "--tau", "0.1"]
    assert main(["invertibility", "evaluate", str(network), *given]) == 0
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert set(report["per_space"]) == {"W+", "F4", "F6"}
    assert report["psnr_lost"]["images"] == 2
    with Image.open(tmp_path / "evaluation.png") as picture:
        assert picture.width > 500
    assert "R²" in capsys.readouterr().out


def test_it_predicts_for_an_inversion(place, network, tmp_path, capsys):
    photo = str(place / "photos/0/p0.png")
    given = [
        photo,
        "--generator",
        str(place / "toy.safetensors"),
        "--segmenter",
        "slic",
        "--steps",
        "2",
        *QUICK,
        *SPACES,
    ]
    code = main(["invert", *given, "--invertibility", str(network), "--out", str(tmp_path), "--json"])
    assert code == 0
    report = json.loads(capsys.readouterr().out)
    assert report["settings"]["invertibility"] == "predicted"
    assert report["images"][0]["stats"]["tau"] in (pytest.approx(0.2), pytest.approx(0.15))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--spaces", "W+", "F5", "F6"], "says nothing of F5"),
        (["--generator", "demo", "--metric", "mse"], "another generator"),
        (["--metric", "demo"], "cannot be compared"),
    ],
)
def test_a_network_for_something_else_is_refused(place, network, tmp_path, capsys, more, message):
    photo = str(place / "photos/0/p0.png")
    given = [photo, "--generator", str(place / "toy.safetensors"), "--steps", "1", *QUICK, *SPACES, *more]
    assert main(["invert", *given, "--invertibility", str(network), "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_without_a_network_prediction_is_refused_and_auto_measures(place, tmp_path, capsys):
    photo = str(place / "photos/0/p0.png")
    given = [
        photo,
        "--generator",
        str(place / "toy.safetensors"),
        "--segmenter",
        "slic",
        "--steps",
        "2",
        *QUICK,
        *SPACES,
    ]
    assert main(["invert", *given, "--invertibility", "predicted", "--out", str(tmp_path)]) == 2
    assert "no invertibility network for this generator" in capsys.readouterr().err
    assert main(["invert", *given, "--out", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["invertibility"] == "measured"


def test_a_sweep(place, tmp_path, capsys):
    photos = [str(place / f"photos/0/p{number}.png") for number in (0, 2)]
    given = ["--generator", str(place / "toy.safetensors"), "--segmenter", "slic", "--steps", "6", *QUICK, *SPACES]
    assert main(["sweep", *photos, "--taus", "0.05", "0.2", "1", *given, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "editability" in shown
    assert {"curve.json", "curve.png", "p0-sweep.png", "p2-sweep.png"} <= {path.name for path in tmp_path.iterdir()}
    assert main(["sweep", *photos, "--taus", "0.2", *given, "--out", str(tmp_path), "--json"]) == 0
    assert [row["tau"] for row in json.loads(capsys.readouterr().out)["rows"]] == [0.2]
    assert main(["sweep", *photos, "--taus", "-1", *given, "--out", str(tmp_path)]) == 2


def test_a_target(place, tmp_path, capsys):
    photo = str(place / "photos/0/p0.png")
    given = [
        photo,
        "--generator",
        str(place / "toy.safetensors"),
        "--segmenter",
        "slic",
        "--steps",
        "6",
        *QUICK,
        *SPACES,
    ]
    code = main(["invert", *given, "--tau", "auto", "--target-psnr", "1", "--out", str(tmp_path), "--json"])
    assert code == 0
    stats = json.loads(capsys.readouterr().out)["images"][0]["stats"]
    assert stats["target_met"] == 1
    assert main(["invert", *given, "--tau", "auto", "--out", str(tmp_path)]) == 2
    assert "needs one target" in capsys.readouterr().err

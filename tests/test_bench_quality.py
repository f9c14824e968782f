"""Methods times pictures: rows, curves, other programs' pictures, and what goes on where it stopped."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
import re

import pytest
import torch
from toys import random_pictures, toy_stylegan2

import saminv
from saminv import InputError, images
from saminv.bench import measure_quality
from saminv.bench.protocols import FIRST, PROTOCOLS, RANDOM, Protocol
from saminv.bench.report import describe_quality, quality_table
from saminv.bench.rows import at_size
from saminv.cli import main
from saminv.encoders import ENCODERS, load_encoder, make_encoder, save_encoder
from saminv.generators import save_generator
from saminv.metrics import METRICS, SET_METRICS
from saminv.runs import read_manifest

pytestmark = pytest.mark.filterwarnings("ignore:.*looks far from what the generator makes")
SETTINGS = {"metric": "mse", "segmenter": "none"}


@pytest.fixture(scope="module")
def toy():
    return toy_stylegan2()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("pictures")
    for index, picture in enumerate(random_pictures(3, side=32)):
        images.save(place / f"{index}.png", picture)
    return place


def measure(folder, toy, out, methods=("W+", "W+,F4"), **more):
    return measure_quality([folder], methods, out, generator=toy, **{"metrics": ["psnr", "mse"], **SETTINGS, **more})


def test_rows_are_means_of_what_single_inversions_give(toy, folder, tmp_path):
    report = measure(folder, toy, tmp_path, steps=[4, 8])
    assert [(row.method, row.steps, row.images) for row in report.rows] == [
        (method, steps, 3) for method in ("W+", "W+,F4") for steps in (4, 8)
    ]
    for row in report.rows:
        spaces = {"preset": "w+"} if row.method == "W+" else {"spaces": ["W+", "F4"]}
        files = sorted(folder.glob("*.png"))
        found = saminv.invert(files, generator=toy, steps=row.steps, **spaces, **SETTINGS).stats["psnr"].double()
        assert row.means["psnr"] == pytest.approx(float(found.mean()), abs=0.02)
        assert row.errors["psnr"] == pytest.approx(float(found.std() / math.sqrt(3)), abs=0.02)
        assert row.seconds > 0 and not row.failed
    assert report.rows[1].means["psnr"] > report.rows[0].means["psnr"]
    assert report.sheet.shape[:2] == (1, 3) and set(report.definitions) == {"psnr", "mse", "seconds"}


def test_the_json_has_every_picture(toy, folder, tmp_path):
    report = measure(folder, toy, tmp_path, ["W+"], steps=2, external={"same": folder}).to_dict()
    assert json.loads(json.dumps(report)) == report
    assert list(report["sources"]) == ["0", "1", "2"] and report["fingerprint"] == toy.fingerprint
    digest = hashlib.sha256((folder / "1.png").read_bytes()).hexdigest()
    assert report["sources"]["1"] == f"sha256 {digest}" and report["better"] == {"psnr": "higher", "mse": "lower"}
    ours, same = report["rows"]
    found = saminv.invert(folder / "1.png", generator=toy, steps=2, preset="w+", **SETTINGS).stats["psnr"]
    assert ours["each"]["psnr"][1] == pytest.approx(float(found), abs=0.02)
    assert sum(ours["each"]["psnr"]) / 3 == pytest.approx(ours["psnr"])
    # The PSNR of equal pictures is infinite, for which JSON has no number.
    assert same["each"] == {"psnr": [None] * 3, "mse": [0.0] * 3}


def test_names_have_no_case(toy, folder, tmp_path):
    report = measure(folder, toy, tmp_path, ["I2S++", "w+,f4"], steps=2)
    assert [row.method for row in report.rows] == ["I2S++", "w+,f4"]
    upper = measure(folder, toy, tmp_path / "upper", ["i2s++", "W+,F4"], steps=2)
    assert [row.means for row in upper.rows] == [row.means for row in report.rows]


@pytest.fixture(scope="module")
def encoder(toy, tmp_path_factory):
    torch.manual_seed(3)
    built = make_encoder("padinv", toy, widths=(6, 8, 10, 12), blocks=(1, 1, 1, 1), reduction=4, paddings=(2,)).freeze()
    return save_encoder(built, tmp_path_factory.mktemp("encoder") / "own.safetensors")


def test_what_an_encoder_says_is_a_row_of_its_own(toy, folder, tmp_path, encoder):
    report = measure(folder, toy, tmp_path, ["encoder", "w+", "sam"], encoder=str(encoder), steps=[3, 4])
    rows = [(row.method, row.steps) for row in report.rows]
    assert rows == [("encoder", 0), ("w+", 3), ("w+", 4), ("sam", 3), ("sam", 4)]
    start = saminv.invert(
        sorted(folder.glob("*.png")), ["W+", "P"], generator=toy, encoder=encoder, steps=0, **SETTINGS
    ).stats["psnr"]
    assert report.rows[0].means["psnr"] == pytest.approx(float(start.double().mean()), abs=0.02)

    def start_of(method):
        return read_manifest(tmp_path / "methods" / f"{method}-3")[0]["settings"]["encoder"]

    # W+ begins at the mean w, as its paper has it; SAM begins where the encoder points.
    assert start_of("w+") == "mean" and "PadInv" in str(start_of("sam"))


def test_encoders_by_name(toy, folder, tmp_path, encoder, monkeypatch):
    with pytest.raises(InputError, match=r"no encoder of this generator is known .*--encoder"):
        measure(folder, toy, tmp_path, ["encoder"], steps=2)
    monkeypatch.setattr(ENCODERS, "_entries", {"other": lambda: fail(), "own": lambda: load_encoder(encoder)})

    def fail():
        return make_encoder("padinv", toy_stylegan2(seed=5), widths=(6, 8, 10, 12), blocks=(1, 1, 1, 1), reduction=4)

    by_name = measure(folder, toy, tmp_path / "own", ["own"], steps=2)
    first = measure(folder, toy, tmp_path / "first", ["encoder"], steps=2)
    assert by_name.rows[0].means == first.rows[0].means and by_name.rows[0].steps == 0
    with pytest.raises(InputError, match="trained for another generator"):
        measure(folder, toy, tmp_path / "none", ["other"], steps=2)


def test_it_goes_on_where_it_stopped(toy, folder, tmp_path, monkeypatch):
    first = measure(folder, toy, tmp_path, ["W+"], steps=3)
    monkeypatch.setattr("saminv.runs.folder._here", lambda recipe, todo, *_: iter(()) if not todo else pytest.fail())
    again = measure(folder, toy, tmp_path, ["W+"], steps=3)
    assert first.to_dict() == again.to_dict()
    with pytest.raises(saminv.RunError, match="seed"):
        measure(folder, toy, tmp_path, ["W+"], steps=3, seed=5)


def test_pictures_that_cannot_be_read_are_counted(toy, folder, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "broken.png").write_bytes(b"no picture")
    images.save(tmp_path / "more" / "whole.png", random_pictures(1, side=32))
    report = measure(tmp_path / "more", toy, tmp_path / "out", ["W+"], steps=2)
    assert (report.rows[0].images, report.rows[0].failed) == (1, 1)
    assert "psnr" not in report.rows[0].errors and "1 pictures could not be done" in describe_quality(report)


def test_pictures_of_other_programs(toy, folder, tmp_path):
    """The pictures themselves have the best scores that there are; grey ones those of a closed form."""
    for name in ("same", "grey"):
        (tmp_path / name).mkdir()
        for path in folder.glob("*.png"):
            picture = images.load(path).tensor
            images.save(tmp_path / name / path.name, picture if name == "same" else torch.zeros_like(picture))
    external = {name: tmp_path / name for name in ("same", "grey")}
    report = measure(folder, toy, tmp_path / "out", ["W+"], steps=2, external=external)
    _, same, grey = report.rows
    assert (same.method, same.steps, same.seconds, same.means["mse"]) == ("same", None, None, 0)
    assert same.means["psnr"] == math.inf and same.to_dict()["psnr"] is None and "psnr" not in same.errors
    expected = torch.stack([images.load(path).tensor.square().mean() for path in folder.glob("*.png")]).mean()
    assert grey.means["mse"] == pytest.approx(float(expected), rel=0.02)


@pytest.mark.filterwarnings("ignore:FID of")
def test_metrics_of_sets(toy, folder, tmp_path):
    external = {"same": folder}
    report = measure(folder, toy, tmp_path, ["W+"], steps=2, metrics=["psnr", "fid-demo"], external=external)
    values = [row.means["fid-demo"] for row in report.rows]
    assert values[0] > values[1] == pytest.approx(0, abs=1e-3) and "fid-demo" not in report.rows[0].errors


def test_as_text_and_table(toy, folder, tmp_path):
    report = measure(folder, toy, tmp_path, steps=2)
    text = describe_quality(report)
    assert "3 pictures of 32 x 32" in text and "| W+,F4 | 2 | 3 |" in text and "higher is better" in text
    rows = list(csv.DictReader(quality_table(report).splitlines()))
    assert [row["method"] for row in rows] == ["W+", "W+,F4"]
    assert float(rows[0]["psnr"]) == report.rows[0].means["psnr"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": ["ptl"]}, "Unknown preset 'ptl'.*Did you mean 'pti'"),
        ({"methods": ["W+,F99"]}, "Unknown space 'F99'"),
        ({"methods": ["W+", "w+"]}, "named once"),
        ({"methods": []}, "named once"),
        ({"steps": [3, 3]}, "named once"),
        ({"metrics": ["likeness"]}, "different names of: .*psnr"),
        ({"external": {"other": "nowhere"}}, "no folder nowhere"),
        ({"external": {"other": "."}}, "lacks 3 of 3 pictures, for example"),
    ],
)
def test_what_cannot_be(toy, folder, tmp_path, monkeypatch, settings, message):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(InputError, match=message):
        measure(folder, toy, tmp_path / "out", **{"methods": ["W+"], "steps": 1, **settings})


def test_numbers_are_scenes_of_the_demo_world(toy, tmp_path):
    with pytest.raises(InputError, match="scenes of the demo world"):
        measure_quality(2, ["W+"], tmp_path, generator=toy)
    with pytest.raises(InputError, match="from 1 up, got 0"):
        measure_quality(0, ["W+"], tmp_path)


def test_by_command(toy, folder, tmp_path, capsys):
    save_generator(toy, tmp_path / "toy.safetensors")
    words = ["bench", "quality", "--generator", str(tmp_path / "toy.safetensors"), "--images", str(folder)]
    given = "--metric mse --segmenter none --methods W+ i2s++ --steps 2 4 --metrics psnr mse"
    words += [*given.split(), "--out", str(tmp_path / "out")]
    assert main([*words, "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [(row["method"], row["steps"]) for row in rows] == [("W+", 2), ("W+", 4), ("i2s++", 2), ("i2s++", 4)]
    assert all(row["psnr"] > 0 and row["psnr_se"] > 0 for row in rows)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"quality.md", "quality.csv", "quality.png", "sheet.png"} <= written
    assert "| i2s++ | 4 | 3 |" in capsys.readouterr().out
    assert main([*words, "--external", "nothing"]) == 2
    assert main([*words, "--edits", "distance"]) == 0
    assert "prior-distance" in (tmp_path / "out" / "quality.csv").read_text().splitlines()[0]
    assert main(["bench", "compare", str(tmp_path / "rows.json"), str(tmp_path / "out" / "quality.json")]) == 0


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_says_what_its_paper_says(toy, name):
    protocol = PROTOCOLS.get(name)
    assert set(protocol.metrics) <= {*METRICS, *SET_METRICS} and set(protocol.sizes) <= set(protocol.metrics)
    assert re.search(r"\d{4}, arXiv \d{4}\.\d{5}", protocol.reference)
    text = "\n".join(protocol.notes(toy, 3, ["psnr"]))
    assert protocol.title in text and "FFHQ" in text and protocol.unsaid in text
    assert "Not as in the paper: the metrics are psnr." in text
    assert ("3 pictures instead of 1,000" in text) == (name in ("sam", "fse"))


def test_a_protocol_chooses_metrics_sizes_and_pictures(toy, folder, tmp_path, monkeypatch):
    tiny = Protocol("tiny", "a paper", "X, 2020, arXiv 2001.00001", ("mse", "psnr"), (), 2, FIRST, {"mse": (16, 16)})
    monkeypatch.setattr(PROTOCOLS, "_entries", {"tiny": tiny, "mixed": dataclasses.replace(tiny, order=RANDOM)})
    report = measure(folder, toy, tmp_path, ["W+"], steps=2, metrics=None, like="Tiny")
    [row] = report.rows
    assert list(row.means) == ["mse", "psnr"] and list(report.sources) == ["0", "1"] and report.protocol == "tiny"
    assert "Compared at 16 x 16" in report.definitions["mse"] and "16" not in report.definitions["psnr"]
    assert report.notes == ["Protocol of a paper (X, 2020, arXiv 2001.00001): mse, psnr over the first 2 pictures."]
    assert report.notes[0] in describe_quality(report)
    solution = saminv.invert(folder / "0.png", generator=toy, steps=2, preset="w+", **SETTINGS)
    made, wanted = (at_size(image.clamp(-1, 1), (16, 16)) for image in (solution.image, solution.target))
    assert row.each["mse"]["0"] == pytest.approx(float((made - wanted).square().mean()), rel=1e-3)
    mixed = [
        list(measure(folder, toy, tmp_path / str(seed), ["W+"], steps=1, like="mixed", seed=seed).sources)
        for seed in range(4)
    ]
    assert all(len(names) == 2 for names in mixed) and len({tuple(sorted(names)) for names in mixed}) > 1
    with pytest.raises(InputError, match="Unknown protocol 'small'"):
        measure(folder, toy, tmp_path, ["W+"], like="small")


def test_training_and_test_are_held_apart(toy, folder, tmp_path):
    (tmp_path / "train").mkdir()
    images.save(tmp_path / "train" / "x.png", random_pictures(1, side=32, seed=9))
    report = measure(folder, toy, tmp_path / "out", ["W+"], steps=1, train_list=tmp_path / "train")
    assert report.notes == ["1 pictures of training and 3 of test share no names and contents."]
    (tmp_path / "train" / "y.png").write_bytes((folder / "1.png").read_bytes())
    with pytest.raises(InputError, match=r"share 1 pictures under other names"):
        measure(folder, toy, tmp_path / "out", ["W+"], steps=1, train_list=tmp_path / "train")
    (tmp_path / "test.txt").write_text("0.png\n1.png\n")
    with pytest.raises(InputError, match=r"1 of the pictures are not in the list of the test"):
        measure(folder, toy, tmp_path / "out", ["W+"], steps=1, test_list=tmp_path / "test.txt")


@pytest.mark.slow
def test_the_demo_world(tmp_path):
    words = ["bench", "quality", "--generator", "demo", "--methods", "W+", "pti", "sam"]
    words += ["--images", "2", "--steps", "40"]
    assert main([*words, "--out", str(tmp_path), "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["W+", "pti", "sam"]
    assert rows[2]["psnr"] > rows[0]["psnr"] and {"mse", "ssim", "demo", "seconds"} <= set(rows[0])

"""Methods times pictures: rows, curves, other programs' pictures, and what goes on where it stopped."""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch
from toys import random_pictures, toy_stylegan2

import saminv
from saminv import InputError, images
from saminv.bench import measure_quality
from saminv.bench.report import describe_quality, quality_table
from saminv.cli import main
from saminv.generators import save_generator

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


@pytest.mark.slow
def test_the_demo_world(tmp_path):
    words = ["bench", "quality", "--generator", "demo", "--methods", "W+", "pti", "sam"]
    words += ["--images", "2", "--steps", "40"]
    assert main([*words, "--out", str(tmp_path), "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["W+", "pti", "sam"]
    assert rows[2]["psnr"] > rows[0]["psnr"] and {"mse", "ssim", "demo", "seconds"} <= set(rows[0])

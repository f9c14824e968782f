"""Editability as a number, and sweeps on disk."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from PIL import Image
from toys import toy_stylegan2

import saminv
from saminv import GivenInvertibility, InputError
from saminv.editing.editability import editability, principal_directions
from saminv.runs.sweeps import describe_curve, plot_curve, save_sweep, sweep_curve

SPACES = ["W+", "F4", "F6"]


@pytest.fixture(scope="module")
def generator():
    return toy_stylegan2()


@pytest.fixture(scope="module")
def pictures(generator):
    return generator.synthesis(generator.mapping(generator.sample_z(2, seed=77))).clamp(-1, 1)


@pytest.fixture(scope="module")
def settings(generator):
    left = (torch.arange(32) < 16).float().expand(32, 32)
    maps = {"W+": 0.1 + 0.3 * left, "F4": 0.05 + 0.1 * left, "F6": torch.zeros(32, 32)}
    return {
        "generator": generator,
        "metric": "mse",
        "segmenter": left.long(),
        "encoder": "mean",
        "steps": 12,
        "rate": 0.1,
        "invertibility": GivenInvertibility(maps),
    }


@pytest.fixture(scope="module")
def sweep(pictures, settings):
    return saminv.sweep(pictures, [0.0, 0.12, 0.3, 1.0], SPACES, **settings)


# Editability.


def test_w_plus_alone_is_fully_editable(pictures, settings):
    solution = saminv.invert(pictures, ["W+"], **{k: v for k, v in settings.items() if k != "invertibility"})
    assert editability(solution).tolist() == pytest.approx([1.0, 1.0], abs=1e-4)


def test_what_is_frozen_late_is_not_editable(generator, pictures, settings):
    last = generator.feature_sites[-1]
    solution = saminv.invert(pictures, [last], **{k: v for k, v in settings.items() if k != "invertibility"})
    assert editability(solution).abs().max() < 0.2


def test_editability_rises_with_tau(sweep):
    found = torch.stack([editability(solution) for solution in sweep.solutions])
    assert (found[0] < found[-1] - 0.2).all()


def test_editability_is_per_picture(sweep):
    solution = sweep.solutions[1]
    alone = torch.cat([editability(solution[row]) for row in range(2)])
    assert torch.allclose(editability(solution), alone, atol=1e-3)


def test_principal_directions_are_the_axes_of_w(generator):
    directions = torch.stack(principal_directions(generator))
    w = generator.mapping(generator.sample_z(4000, seed=5))[:, 0]
    products = directions @ directions.t()
    assert torch.allclose(products, torch.diag(products.diagonal()), atol=1e-3)
    along = (w @ (directions / directions.norm(dim=1, keepdim=True)).t()).std(dim=0)
    assert torch.allclose(along, directions.norm(dim=1), rtol=0.1)
    assert (along.diff() < 0).all()


def test_impossible_edits_are_refused(sweep):
    with pytest.raises(InputError, match="no direction"):
        editability(sweep.solutions[0], [])
    solution = sweep.solutions[0][0]
    solution.generator = None
    with pytest.raises(InputError, match="no generator"):
        editability(solution)


# On disk.


def test_a_curve_is_plain_json(sweep):
    curve = sweep_curve(sweep)
    assert json.loads(json.dumps(curve, allow_nan=False)) == curve
    assert curve["names"] == ["image-0", "image-1"]
    assert [row["tau"] for row in curve["rows"]] == [0.0, 0.12, 0.3, 1.0]
    assert all(len(row[key]) == 2 for row in curve["rows"] for key in ("psnr", "ssim", "mse", "editability"))
    text = describe_curve(curve)
    assert len(text.splitlines()) == 5
    assert "W+ 100%" in text.splitlines()[-1]


def test_a_sweep_is_saved(tmp_path, sweep, generator):
    names = list(sweep.solutions[0].provenance["names"])
    report = save_sweep(sweep, tmp_path / "out", solutions=True)
    assert sweep.solutions[0].provenance["names"] == names
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert {"curve.json", "curve.png", "image-0-sweep.png", "image-1-sweep.png"} <= set(written)
    assert json.loads((tmp_path / "out/curve.json").read_text())["rows"] == report["rows"]
    kept = [name for name in written if name.endswith(".safetensors")]
    assert "image-0-tau-0.safetensors" in kept
    for name in kept:
        solution = saminv.Solution.load(tmp_path / "out" / name, generator=generator)
        assert float(solution.stats["tau"]) == pytest.approx(float(name.split("-tau-")[1].removesuffix(".safetensors")))
    with Image.open(tmp_path / "out/image-0-sweep.png") as one, Image.open(tmp_path / "out/curve.png") as curve:
        assert one.height > 3 * 32
        assert curve.width > 600
    assert report["note"] is None


def test_without_matplotlib_the_rest_is_there(tmp_path, sweep, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    report = save_sweep(sweep, tmp_path)
    assert "saminv[plot]" in report["note"]
    assert not (tmp_path / "curve.png").exists()
    assert (tmp_path / "curve.json").exists()
    with pytest.raises(saminv.MissingExtraError):
        plot_curve(sweep_curve(sweep), tmp_path / "curve.png")

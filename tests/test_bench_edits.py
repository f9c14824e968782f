"""Columns of edits: what each is, that they survive interruptions, and where there are none."""

from __future__ import annotations

import json

import pytest
import torch
from toys import random_pictures, toy_stylegan2

import saminv
from saminv import InputError, Solution, images
from saminv.bench import edits, measure_quality
from saminv.demo.edits import SceneEdits
from saminv.editing import latent_distance
from saminv.metrics import edit_effect

pytestmark = pytest.mark.filterwarnings("ignore:.*looks far from what the generator makes")
SETTINGS = {"metric": "mse", "segmenter": "none", "metrics": ["psnr"]}
STEPS = 3


@pytest.fixture(scope="module")
def toy():
    return toy_stylegan2()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("pictures")
    for index, picture in enumerate(random_pictures(3, side=32)):
        images.save(place / f"{index}.png", picture)
    return place


def measure(folder, toy, out, **more):
    return measure_quality([folder], ["W+"], out, generator=toy, steps=STEPS, batch=2, **{**SETTINGS, **more})


def test_columns_are_what_the_library_says_of_each_solution(toy, folder, tmp_path):
    report = measure(folder, toy, tmp_path, edits=None)
    [row] = report.rows
    columns = [column for name in ("editability", "consistency", "distance") for column in edits.EDITS[name]]
    assert list(row.each) == ["psnr", *columns] and set(columns) < set(report.definitions)
    assert report.better["lec"] == "lower" and report.better["editability"] == "higher"
    for name in ("0", "1", "2"):
        solution = Solution.load(tmp_path / f"methods/w+-{STEPS}/results/{name}.safetensors", generator=toy)
        assert row.each["prior-distance"][name] == pytest.approx(float(latent_distance(solution)))
        # In W+ everything of an edit comes through.
        assert row.each["editability"][name] == pytest.approx(1, abs=1e-4)
        assert 0 < row.each["lec"][name] < 100 and row.each["lec-relative"][name] > 0
    assert row.means["lec"] == pytest.approx(sum(row.each["lec"].values()) / 3) and row.errors["lec"] > 0


def test_they_go_on_where_they_stopped(toy, folder, tmp_path, monkeypatch):
    calls, real = [], edits.invert

    def interrupted(img, **settings):
        calls.append(len(img))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(img, **settings)

    monkeypatch.setattr(edits, "invert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(folder, toy, tmp_path, edits=["consistency"])
    first = measure(folder, toy, tmp_path, edits=["consistency"])
    # Two pictures, the interruption at the third, and the third alone.
    assert calls == [2, 1, 1]
    again = measure(folder, toy, tmp_path, edits=["consistency", "distance"])
    assert calls == [2, 1, 1] and again.rows[0].each["lec"] == first.rows[0].each["lec"]


@pytest.mark.parametrize("content", ["no JSON", '{"format": "other"}', '{"format": "saminv.edits.1", "measures": 3}'])
def test_what_was_kept_and_is_damaged(toy, folder, tmp_path, content):
    measure(folder, toy, tmp_path, edits=["distance"])
    (tmp_path / f"methods/w+-{STEPS}/edits.json").write_text(content)
    with pytest.raises(saminv.RunError, match=r"is damaged.*Delete it"):
        measure(folder, toy, tmp_path, edits=["distance"])


def test_pictures_that_changed_are_measured_again(toy, folder, tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    images.save(place / "0.png", random_pictures(1, side=32))
    before = measure(place, toy, tmp_path / "out", edits=["distance"]).rows[0].each
    images.save(place / "0.png", -random_pictures(1, side=32))
    after = measure(place, toy, tmp_path / "out", edits=["distance"]).rows[0].each
    assert before["prior-distance"] != after["prior-distance"]
    assert len(json.loads((tmp_path / f"out/methods/w+-{STEPS}/edits.json").read_text())["measures"]["distance"]) == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["effect"], "known for scenes of the demo world only"),
        (["beauty"], "must be different ones of: effect, editability"),
        (["distance", "distance"], "must be different ones"),
    ],
)
def test_what_cannot_be_measured(toy, folder, tmp_path, names, message):
    with pytest.raises(InputError, match=message):
        measure(folder, toy, tmp_path, edits=names)


def test_other_programs_have_no_edits(toy, folder, tmp_path):
    report = measure(folder, toy, tmp_path, edits=["distance"], external={"same": folder})
    assert "prior-distance" in report.rows[0].means and "prior-distance" not in report.rows[1].means


def test_effects_of_scenes(tmp_path):
    """The scene's own code has the full effect by definition; a run's column is the mean over the factors."""
    generator = saminv.load_generator("demo")
    scene, clean = (saminv.demo.sample_scenes(1, 50_000, strangers=strangers) for strangers in (True, False))
    trial = SceneEdits(scene, clean, generator, ("car_hue", "headlights"))
    for name, (before, after) in trial.references.items():
        assert float(edit_effect(before, after, before, after)) == 1 and trial.outside[name].mean() > 0.3
    report = measure_quality(1, ["W+"], tmp_path, steps=2, metrics=["psnr"], edits=["effect"])
    solution = Solution.load(tmp_path / "methods/w+-2/results/scene-50000.safetensors", generator=generator)
    found = SceneEdits(scene, clean, generator).measure(solution)
    assert report.rows[0].means["edit-effect"] == pytest.approx(found["mean_effect"])
    assert report.rows[0].means["edit-drift"] == pytest.approx(sum(found["drift"].values()) / 6)
    assert report.sources == {"scene-50000": "demo scene 50000"} and torch.isfinite(solution.image).all()

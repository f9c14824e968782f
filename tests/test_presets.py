"""Published ways to invert, as stages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toys import random_pictures, toy_stylegan2

import saminv
from saminv import PRESETS, InputError, runs
from saminv._presets import Preset, Stage
from saminv.cli import main
from saminv.encoders import make_encoder

pytestmark = pytest.mark.filterwarnings("ignore:.*looks far from what the generator makes")
SETTINGS = {"metric": "mse", "segmenter": "none", "steps": 12, "invertibility": "measured"}


@pytest.fixture(scope="module")
def toy():
    """A toy with the layers that the presets name."""
    return toy_stylegan2(resolution=64)


@pytest.fixture(scope="module")
def pictures():
    return random_pictures(2, side=64)


@pytest.fixture(scope="module")
def encoder(toy):
    torch.manual_seed(0)
    return make_encoder("gradual", toy, widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1), reduction=2).freeze()


@pytest.mark.parametrize("name", list(PRESETS))
def test_each_ends_nearer_than_it_begins(toy, pictures, encoder, name):
    start = saminv.invert(pictures, ["W+"], generator=toy, encoder="mean", **{**SETTINGS, "steps": 0})
    more = {"encoder": encoder} if name == "idinvert" else {}
    found = saminv.invert(pictures, preset=name, generator=toy, **SETTINGS, **more)
    assert (found.stats["mse"] < start.stats["mse"]).all()
    assert found.provenance["preset"] == name and found.provenance["steps"] == 12
    spaces = PRESETS.get(name).stages[-1].spaces
    assert set(found.latents) == set(spaces or toy.default_spaces)
    assert found.edit(torch.ones(12), 0.5).shape == pictures.shape


@pytest.mark.parametrize("name", list(PRESETS))
def test_steps_are_shared_out(name):
    preset = PRESETS.get(name)
    assert sum(stage.share for stage in preset.stages) == pytest.approx(1)
    for total in (0, 1, 7, 300):
        assert sum(preset.steps(total)) == total and min(preset.steps(total)) >= 0
    assert preset.title and "arXiv" in preset.reference


def test_a_stage_begins_where_the_one_before_has_ended(toy, pictures):
    pivot = saminv.invert(
        pictures, ["W"], generator=toy, encoder="mean", weights={"prior": 0, "deviation": 0}, **{**SETTINGS, "steps": 7}
    )
    found = saminv.invert(pictures, preset="pti", generator=toy, **SETTINGS)
    assert torch.equal(found.latents["W"]["w"], pivot.latents["W"]["w"])
    assert found.latents["G"]["delta"].abs().amax() > 0


def test_sam_is_what_invert_does(toy, pictures):
    plain = saminv.invert(pictures, generator=toy, **SETTINGS)
    assert torch.equal(saminv.invert(pictures, preset="sam", generator=toy, **SETTINGS).image, plain.image)
    chosen = saminv.invert(pictures, ["W+", "F4"], 0.2, preset="sam", generator=toy, **SETTINGS)
    assert set(chosen.latents) == {"W+", "F4"}


def test_weights_can_be_changed(toy, pictures):
    settings = {"generator": toy, **SETTINGS, "preset": "pti"}
    usual, held = (saminv.invert(pictures, weights=more, **settings) for more in (None, {"locality": 100.0}))
    assert held.provenance["weights"]["locality"] == 100 and held.provenance["weights"]["prior"] == 0
    assert (held.latents["G"]["delta"] != usual.latents["G"]["delta"]).any()


def test_an_encoder_holds_the_styles(toy, pictures, encoder):
    """The distance to what the encoder says of the made picture, by hand; with a high weight it becomes small."""
    settings = {"generator": toy, **SETTINGS, "preset": "idinvert", "encoder": encoder}
    apart = []
    for weight in (0.0, 1e4):
        found = saminv.invert(pictures, weights={"domain": weight}, **settings)
        said = encoder.encode(found.image, toy)["W+"]["w"]
        apart.append((found.latents["W+"]["w"] - said).square().mean(dim=(1, 2)))
    assert (apart[1] < apart[0]).all()
    torch.testing.assert_close(found.stats["loss/domain"], apart[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "ptl"}, "Unknown preset 'ptl'.*Did you mean 'pti'"),
        ({"preset": "pti", "spaces": ["W+"]}, "says spaces itself"),
        ({"preset": "pti", "frozen": ["W"], "encoder": "nearest"}, "says encoder, frozen itself"),
        ({"preset": "idinvert"}, "encoder='auto' is none. Pass one that was trained for this generator"),
        ({"preset": "idinvert", "encoder": torch.zeros(10, 12)}, "encoder=Tensor is none"),
        ({"preset": "sam", "tau": "auto", "target_psnr": 30.0}, "A search by tau='auto' takes no preset"),
    ],
)
def test_what_cannot_be(toy, pictures, settings, message):
    with pytest.raises(InputError, match=message):
        saminv.invert(pictures, generator=toy, **{**SETTINGS, **settings})


def test_a_preset_without_a_stage_of_that_kind():
    preset = Preset("x", "x", "x", (Stage(("W+",), 0.5), Stage(None, 0.5)))
    assert preset.steps(5) == [2, 3]


def test_by_command(tmp_path, toy):
    saminv.generators.save_generator(toy, tmp_path / "toy.safetensors")
    saminv.images.save(tmp_path / "picture.png", random_pictures(1, side=64))
    words = ["--preset", "i2s++", "--generator", str(tmp_path / "toy.safetensors"), "--metric", "mse", "--steps", "4"]
    assert main(["invert", str(tmp_path / "picture.png"), "--out", str(tmp_path / "out"), *words]) == 0
    solution = saminv.Solution.load(tmp_path / "out" / "picture.safetensors", generator=toy)
    assert set(solution.latents) == {"W+", "N"} and solution.provenance["preset"] == "i2s++"


def test_over_folders(toy, pictures, tmp_path):
    """A run with stages gives what single calls give, and is told from one without."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(3):
        saminv.images.save(folder / f"{index}.png", pictures[index % 2])
    settings = {**SETTINGS, "generator": toy, "steps": 6}
    report = runs.run([folder], tmp_path / "out", preset="i2s++", batch=2, progress=False, **settings)
    assert report.done == 3
    again = runs.run([folder], tmp_path / "out", preset="i2s++", batch=2, progress=False, **settings)
    assert (again.done, again.fresh) == (3, 0)
    found = saminv.Solution.load(tmp_path / "out" / "results" / "1.safetensors", generator=toy)
    alone = saminv.invert(folder / "1.png", preset="i2s++", **settings)
    assert found.provenance["preset"] == "i2s++" and found.provenance["steps"] == 6
    torch.testing.assert_close(found.image, alone.image, rtol=1e-4, atol=1e-4)
    with pytest.raises(saminv.RunError, match="preset"):
        runs.run([folder], tmp_path / "out", ["W+", "N"], batch=2, progress=False, **settings)
    with pytest.raises(InputError, match="stages of its own"):
        runs.run([folder], tmp_path / "other", preset="pti", sequence=True, progress=False, **settings)


def test_a_sweep_takes_none(toy, pictures):
    with pytest.raises(InputError, match="not preset"):
        saminv.sweep(pictures, [0.1], preset="sam", generator=toy)


def test_the_page_lists_them():
    page = (Path(__file__).parent.parent / "docs" / "presets.md").read_text()
    table, differences = page.split("## What differs from the papers")
    rows = {line.split("`")[1]: line for line in table.splitlines() if line.startswith("| `")}
    for line in differences.splitlines():
        assert not line.startswith("| `") or line.split("`")[1] in PRESETS
    assert set(rows) == set(PRESETS)
    for name, row in rows.items():
        assert row.rstrip(" |").endswith(PRESETS.get(name).reference.split(", ", 2)[2])


def test_names_have_no_case(pictures, toy):
    found = saminv.invert(pictures, preset="W+", generator=toy, **SETTINGS)
    assert found.provenance["preset"] == "w+" and set(found.latents) == {"W+"}

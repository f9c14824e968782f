"""Directions from text: a model of the shape of CLIP that knows colours, and open_clip itself where it is installed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import assert_close
from torch import Tensor, nn
from toys import toy_stylegan2

import saminv
from saminv import CheckpointError, InputError, MissingExtraError, cli
from saminv.editing import (
    Clip,
    DirectionSet,
    LinearDirection,
    channel_effects,
    effects_file,
    find_direction,
    text_directions,
)
from saminv.editing.channels import channel_deviation
from saminv.editing.strips import sample_solution
from saminv.editing.text import text_change
from saminv.generators import StyleGAN2, save_generator, style_layers

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}


class ColourModel:
    """Embeds pictures and texts by their colours, with one number that is always there."""

    name = "colours"

    def texts(self, texts: Sequence[str]) -> Tensor:
        found = [
            torch.tensor([sum([COLOURS[w][k] for w in COLOURS if w in text], 0.0) for k in range(3)]) for text in texts
        ]
        return F.pad(torch.stack(found), (0, 1), value=1.0)

    def images(self, images: Tensor) -> Tensor:
        return F.pad(images.mean(dim=(2, 3)), (0, 1), value=1.0)


@pytest.fixture(scope="module")
def generator() -> StyleGAN2:
    return toy_stylegan2()


@pytest.fixture(scope="module")
def effects(generator: StyleGAN2) -> Tensor:
    return channel_effects(generator, ColourModel(), images=3, step=3.0)


def test_effects_have_a_row_of_unit_length_per_channel(generator, effects) -> None:
    layers = [layer for layer in style_layers(generator) if not layer.paints]
    assert effects.shape == (sum(layer.channels for layer in layers), 4)
    assert_close(effects.norm(dim=1), torch.ones(len(effects)), 1e-4)


def test_an_effect_is_what_its_channel_does(generator, effects) -> None:
    layer, channel = style_layers(generator)[0], 3
    spread = channel_deviation(generator, [layer])[channel]
    styles = generator.mapping(generator.sample_z(3, 0))
    ends = []
    for sign in (3.0, -3.0):
        other = toy_stylegan2()
        other.layers[0].affine.bias[channel] += sign * spread
        ends.append(F.normalize(ColourModel().images(other.synthesis(styles).clamp(-1, 1)), dim=1))
    expected = F.normalize(F.normalize(ends[0] - ends[1], dim=1).mean(dim=0), dim=0)
    assert_close(effects[channel], expected, 1e-3)


class Interrupted(ColourModel):
    """Is interrupted after some looks at pictures."""

    def __init__(self, left: int) -> None:
        self.left = left

    def images(self, images: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().images(images)


def test_effects_go_on_where_they_were_interrupted(generator, effects, tmp_path) -> None:
    how = {"images": 3, "step": 3.0, "cache": tmp_path / "effects.safetensors"}
    with pytest.raises(KeyboardInterrupt):
        channel_effects(generator, Interrupted(left=7), **how)
    with pytest.raises(KeyboardInterrupt):
        channel_effects(generator, Interrupted(left=3), **how)
    # Two looks for a channel: three channels were done, then one.
    rest = Interrupted(left=2 * (len(effects) - 4))
    assert torch.equal(channel_effects(generator, rest, **how), effects) and rest.left == 0
    assert torch.equal(channel_effects(generator, Interrupted(left=0), **how), effects)
    with pytest.raises(InputError, match="another generator, model or samples"):
        channel_effects(generator, ColourModel(), **{**how, "seed": 1})
    how["cache"].write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="no readable file of channel effects"):
        channel_effects(generator, ColourModel(), **how)
    assert [path.name for path in tmp_path.iterdir()] == ["effects.safetensors"]


def test_effects_have_a_place_of_their_own(generator) -> None:
    places = {effects_file(generator, ColourModel(), seed=seed, images=count) for seed in (0, 1) for count in (2, 3)}
    assert len(places) == 4 and all(place.parent.is_dir() for place in places)
    assert not any(name.startswith("effects") for name in saminv.editing.kept_names(generator))


def test_the_command_measures_once(generator, tmp_path, capsys, monkeypatch) -> None:
    file = save_generator(generator, tmp_path / "toy.safetensors")
    words = ["directions", "find", "text", "--generator", str(file), "--samples", "2", "--text"]
    monkeypatch.setattr("saminv.cli.directions.Clip", lambda *_: ColourModel())
    assert cli.main([*words, "red", "", "--threshold", "0.3"]) == 0
    monkeypatch.setattr("saminv.cli.directions.Clip", lambda *_: Interrupted(left=0))
    assert cli.main([*words, "blue", "", "--threshold", "0.3", "--name", "second"]) == 0
    assert "second/blue" in capsys.readouterr().out


def test_a_text_moves_pictures_towards_its_colour(generator, effects) -> None:
    found = text_directions(generator, ColourModel(), [("red", ""), ("blue", "")], effects=effects, threshold=0.3)
    assert list(found.directions) == ["red", "blue"] and found.method == "text"
    solution = sample_solution(generator, 4, seed=6)
    for name, channel in (("red", 0), ("blue", 2)):
        change = solution.edit(found[name], 1.0) - solution.image
        moved = change.mean(dim=(0, 2, 3))
        assert moved[channel] > 0 and moved[channel] > 1.5 * moved[1]
        assert_close(solution.edit(found[name], 0.0), solution.image, 1e-6)
    assert torch.equal(found["red"].styles, torch.zeros(8, 12))


def test_channels_move_by_agreement_and_deviation(generator, effects) -> None:
    found = text_directions(generator, ColourModel(), [("green", "red")], effects=effects, threshold=0.5)
    layers = [layer for layer in style_layers(generator) if not layer.paints]
    agreement = effects @ text_change(ColourModel(), "green", "red")
    shift = agreement.where(agreement.abs() >= 0.5, 0.0) / agreement.abs().max() * channel_deviation(generator, layers)
    for layer, part in zip(layers, shift.split([layer.channels for layer in layers])):
        got = found["green"].channels.get(layer.name, torch.zeros(layer.channels))
        assert torch.allclose(got, part, atol=1e-6)
    assert found.values["channels"] == [float((agreement.abs() >= 0.5).sum())]


def test_text_directions_are_kept_in_slots_and_composed(generator, effects, tmp_path) -> None:
    found = text_directions(generator, ColourModel(), [("red", "")], effects=effects, threshold=0.2)
    found.keep()
    solution = sample_solution(generator, 2, seed=6)
    assert torch.equal(solution.edit("text/red"), solution.edit(found["red"]))
    again = DirectionSet.load(found.save(tmp_path / "text.safetensors"))
    part = find_direction("text/red@0-2", generator)
    assert isinstance(part, LinearDirection) and {part.slots[name] for name in part.channels} <= {0, 1, 2}
    whole = solution.edit([("text/red@0-2", 1.0), ("text/red@3-7", 1.0)])
    assert_close(whole, solution.edit(again["red"]), 1e-5)
    assert_close(solution.edit({"text/red": 0.5}), solution.edit("text/red", 0.5), 1e-5)
    with pytest.raises(InputError, match="no tensor: it depends on the styles, changes channels"):
        saminv.editing.resolve_direction("text/red", generator)


def test_what_text_cannot_do(generator, effects, tmp_path) -> None:
    model = ColourModel()
    with pytest.raises(InputError, match="mean the same to the model"):
        text_directions(generator, model, [("red", "red")], effects=effects)
    with pytest.raises(InputError, match=r"No channel agrees with 'red' by 1.01.*lower threshold"):
        text_directions(generator, model, [("red", "")], effects=effects, threshold=1.01)
    with pytest.raises(InputError, match="There are no texts"):
        text_directions(generator, model, [], effects=effects)
    np.save(tmp_path / "fs3.npy", effects.numpy()[:5])
    with pytest.raises(InputError, match=r"The effects are \[5, 4\]"):
        text_directions(generator, model, [("red", "")], effects=tmp_path / "fs3.npy")
    (tmp_path / "fs3.npy").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"no readable \.npy file of channel effects"):
        text_directions(generator, model, [("red", "")], effects=tmp_path / "fs3.npy")


def test_a_file_of_effects_is_taken(generator, effects, tmp_path) -> None:
    np.save(tmp_path / "fs3.npy", effects.numpy())
    texts = [("red", "")]
    found = text_directions(generator, ColourModel(), texts, effects=tmp_path / "fs3.npy", threshold=0.3)
    expected = text_directions(generator, ColourModel(), texts, effects=effects, threshold=0.3)
    assert all(torch.equal(found["red"].channels[k], x) for k, x in expected["red"].channels.items())


def test_without_open_clip_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingExtraError, match=r'pip install "saminv\[text\]"'):
        Clip()


TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    """A model of open_clip with random weights, and the file of these."""
    open_clip = pytest.importorskip("open_clip")
    folder = tmp_path_factory.mktemp("clip")
    (folder / "saminv-tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "saminv-tiny.json")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = open_clip.create_model("saminv-tiny").eval()
    torch.save(network.state_dict(), folder / "tiny.pt")
    return open_clip, network, folder / "tiny.pt"


def test_open_clip_embeds_as_it_does_by_itself(tiny) -> None:
    open_clip, network, path = tiny
    clip = Clip("saminv-tiny", path)
    texts = ["a photo of a red car.", "a car"]
    tokens = open_clip.get_tokenizer("saminv-tiny")(texts)
    with torch.no_grad():
        assert_close(clip.texts(texts), network.encode_text(tokens), 1e-5)
        pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        mean, std = (
            torch.tensor(x)[:, None, None] for x in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
        )
        assert_close(clip.images(2 * pixels - 1), network.encode_image((pixels - mean) / std), 1e-4)
    assert clip.images(torch.zeros(1, 3, 128, 128)).shape == (1, 16)
    assert clip.name == "saminv-tiny-tiny" and clip.fingerprint.startswith("saminv-tiny-tiny-")


def test_weights_get_the_activation_that_they_were_trained_with(tiny, monkeypatch) -> None:
    open_clip, _, path = tiny
    asked = []

    def create(model: str, weights: str, **options: Any) -> nn.Module:
        asked.append((model, weights, options["force_quick_gelu"]))
        return built("saminv-tiny", **options)

    built = open_clip.create_model
    monkeypatch.setattr(open_clip, "create_model", create)
    clip = Clip("ViT-B-32", "openai")
    assert any(type(module).__name__ == "QuickGELU" for module in clip.network.modules())
    Clip("ViT-B-32", "laion2b_s34b_b79k")
    Clip("saminv-tiny", path)
    assert [quick for _, _, quick in asked] == [True, False, False]


def test_open_clip_weights_that_are_none(tiny, tmp_path) -> None:
    (tmp_path / "noise.pt").write_bytes(b"nothing at all")
    with pytest.raises(CheckpointError, match="holds no weights of saminv-tiny"):
        Clip("saminv-tiny", tmp_path / "noise.pt")
    with pytest.raises(InputError, match="neither a file nor weights of ViT-B-32"):
        Clip("ViT-B-32", "no-such-tag")
    with pytest.raises(InputError, match="open_clip has no model 'nothing'"):
        Clip("nothing")


def test_open_clip_finds_directions(tiny, generator) -> None:
    clip = Clip("saminv-tiny", tiny[2])
    rows = channel_effects(generator, clip, images=2)
    found = text_directions(generator, clip, [("a red car", "a car")], effects=rows, threshold=0.01)
    assert found.settings["model"] == "saminv-tiny-tiny" and found.values["channels"][0] > 1
    solution = sample_solution(generator, 1)
    assert float((solution.edit(found[0], 3.0) - solution.image).abs().max()) > 1e-3

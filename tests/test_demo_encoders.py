"""The bundled encoders: what they are for, and that their starts are worth something."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from toys import toy_stylegan2

import saminv
from saminv._errors import InputError
from saminv.cli import main
from saminv.demo.encoders import CARD_FIGURE, FILES, KINDS, bundled_encoders, load_demo_encoder
from saminv.segment.predicted import find_network
from saminv.weights import cards

SPACES = {"padinv": ["W+", "P"], "feature-style": ["W+", "FS5"], "sam": ["W+", "F4", "F6", "F8"]}


@pytest.fixture(scope="module")
def scenes():
    """Scenes that no training has seen, without strangers and with them."""
    pairs = [saminv.demo.sample_scenes(1, seed, strangers=seed % 2 == 0).images for seed in (70_001, 70_002)]
    return torch.cat(pairs)


def inverted(scenes, spaces, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return saminv.invert(scenes, spaces, device="cpu", **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_alone_is_far_better_than_the_mean(kind, scenes):
    found = inverted(scenes, SPACES[kind], encoder=f"demo-{kind}", steps=0)
    mean = inverted(scenes, ["W+"], encoder="mean", steps=0, segmenter="none", invertibility="measured")
    assert bool((found.stats["psnr"] > mean.stats["psnr"] + 3).all())
    assert float(found.stats["psnr"][0]) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_its_card_and_its_file_say_whose_it_is(kind):
    generator, encoder = saminv.load_generator("demo"), load_demo_encoder(kind)
    assert encoder.provides == frozenset(SPACES[kind]) and encoder.config.fingerprint == generator.fingerprint
    card = cards()[f"{FILES}{kind}"]
    assert card.figures[CARD_FIGURE] == generator.fingerprint
    assert card.figures["psnr_clean"] > card.figures["psnr_strangers"] > 15
    assert not encoder.training and not any(weight.requires_grad for weight in encoder.parameters())


def test_each_generator_knows_its_own_encoders(capsys):
    assert bundled_encoders(saminv.load_generator("demo")) == [f"demo-{kind}" for kind in KINDS]
    assert bundled_encoders(toy_stylegan2()) == []
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["encoders"] == [f"demo-{kind}" for kind in KINDS]


def test_networks_of_other_kinds_are_told_apart():
    """Cards of encoders name a generator too; a search for an invertibility network passes them by."""
    assert find_network(saminv.load_generator("demo")).name == "demo-invertibility.safetensors"


def test_an_encoder_of_another_generator_is_refused(scenes):
    with pytest.raises(InputError, match=r"numbers.*this generator has"):
        saminv.invert(scenes[..., :32, :32], ["W+"], generator=toy_stylegan2(), encoder="demo-padinv", metric="mse")

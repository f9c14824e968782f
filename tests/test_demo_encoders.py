"""The bundled encoders: what they are for, and that their starts are worth something."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from toys import toy_stylegan2

import saminv
from saminv._errors import CheckpointError, InputError
from saminv.bench.methods import find_methods
from saminv.cli import main
from saminv.demo.encoders import CARD_FIGURE, FILES, NAMES, bundled_encoders, bundled_kinds, load_demo_encoder
from saminv.encoders import ENCODERS
from saminv.segment.predicted import find_network
from saminv.weights import cards

KINDS = bundled_kinds()
NAMED = [f"{NAMES}{kind}" for kind in KINDS]
bundled = pytest.mark.skipif(not KINDS, reason="no encoder is bundled: there is none in saminv/weights")
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


@bundled
@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_alone_is_far_better_than_the_mean(kind, scenes):
    found = inverted(scenes, SPACES[kind], encoder=f"demo-{kind}", steps=0)
    mean = inverted(scenes, ["W+"], encoder="mean", steps=0, segmenter="none", invertibility="measured")
    assert bool((found.stats["psnr"] > mean.stats["psnr"] + 3).all())
    assert float(found.stats["psnr"][0]) > 20


@bundled
@pytest.mark.parametrize("kind", KINDS)
def test_its_card_and_its_file_say_whose_it_is(kind):
    generator, encoder = saminv.load_generator("demo"), load_demo_encoder(kind)
    assert encoder.provides == frozenset(SPACES[kind]) and encoder.config.fingerprint == generator.fingerprint
    card = cards()[f"{FILES}{kind}"]
    assert card.figures[CARD_FIGURE] == generator.fingerprint
    assert card.figures["psnr_clean"] > card.figures["psnr_strangers"] > 15
    assert not encoder.training and not any(weight.requires_grad for weight in encoder.parameters())


def test_what_is_named_is_what_there_is(capsys):
    """Names, cards and ``saminv info`` agree, however many encoders are bundled."""
    assert set(KINDS) <= set(SPACES) and {name for name in ENCODERS if name.startswith(NAMES)} == set(NAMED)
    assert bundled_encoders(saminv.load_generator("demo")) == NAMED
    assert bundled_encoders(toy_stylegan2()) == []
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["encoders"] == (NAMED or ["none"])


def test_a_damaged_list_of_cards_hides_no_name(monkeypatch):
    """Names are asked for at the first import, which opens no file."""

    def fail():
        raise CheckpointError("damaged")

    monkeypatch.setattr("saminv.weights.cards", fail)
    assert bundled_kinds() == KINDS


@bundled
def test_a_comparison_takes_the_encoder_of_its_generator():
    [method] = find_methods(["encoder"], [5], "auto", saminv.load_generator("demo"))
    assert method.arguments["encoder"] == NAMED[0] and method.steps == 0
    with pytest.raises(InputError, match="no encoder of this generator is known"):
        find_methods(["encoder"], [5], "auto", toy_stylegan2())


def test_networks_of_other_kinds_are_told_apart():
    """Cards of encoders name a generator too; a search for an invertibility network passes them by."""
    assert find_network(saminv.load_generator("demo")).name == "demo-invertibility.safetensors"


@bundled
def test_an_encoder_of_another_generator_is_refused(scenes):
    with pytest.raises(InputError, match=r"numbers.*this generator has"):
        saminv.invert(scenes[..., :32, :32], ["W+"], generator=toy_stylegan2(), encoder=NAMED[0], metric="mse")

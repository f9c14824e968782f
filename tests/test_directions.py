"""Codes of scenes and directions of the demo's generator: they are what they say, and belong to one generator only."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toys import LinearGenerator, toy_stylegan2

from saminv import InputError
from saminv.demo import FACTORS, factors_from_z
from saminv.demo.codes import EDGE, code_of_factors
from saminv.demo.generator import load_demo_generator
from saminv.demo.scenes import CONTINUOUS_FACTORS, FACTOR_INDEX, sample_factors
from saminv.demo.train_directions import AMOUNT, BUNDLED, Trial, coordinates, export, fit_directions, without_late_slots
from saminv.editing import direction_names, resolve_direction
from saminv.generators import StyleGAN2
from saminv.metrics.editing import change
from saminv.metrics.vision import VisionNet, load_vision
from saminv.weights import load_bundled


@pytest.fixture(scope="module")
def generator() -> StyleGAN2:
    return load_demo_generator()


@pytest.fixture(scope="module")
def network() -> VisionNet:
    return load_vision()


@given(seed=st.integers(0, 2**30), z_dim=st.integers(48, 96))
@settings(max_examples=25, deadline=None)
def test_codes_have_their_factors(seed: int, z_dim: int) -> None:
    factors = sample_factors(3, seed)
    codes = code_of_factors(factors, z_dim, seed)
    split = len(CONTINUOUS_FACTORS)
    assert codes.shape == (3, z_dim)
    found = factors_from_z(codes)
    assert torch.equal(found[:, split:], factors[:, split:])
    assert torch.allclose(found[:, :split], factors[:, :split].clamp(EDGE, 1 - EDGE), atol=1e-5)
    assert torch.allclose(codes.square().mean(dim=1), torch.ones(3), atol=1e-5), "normalising must change nothing"


@pytest.mark.parametrize(
    ("factors", "z_dim", "words"),
    [
        (torch.full((1, len(FACTORS)), 1.5), 64, "must be"),
        (torch.full((1, 3), 0.5), 64, "must be"),
        (torch.full((1, len(FACTORS)), 0.5), len(FACTORS), "no room"),
        (torch.zeros(1, len(FACTORS)), 64, "too extreme"),
    ],
)
def test_impossible_codes_are_refused(factors: Tensor, z_dim: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        code_of_factors(factors, z_dim)


def test_directions_move_one_prediction_each() -> None:
    # The mapping of this generator is the identity, so w is z and coordinate k is nearly its own k-th entry.
    generator = LinearGenerator(style_dim=40)
    fit = fit_directions(generator, samples=4000)
    w = generator.sample_z(2000, 9)
    split = len(CONTINUOUS_FACTORS)
    before = coordinates(factors_from_z(w))
    after = coordinates(factors_from_z(w + fit.directions[2] * w.norm(dim=1, keepdim=True) / 40**0.5))
    moved = (after - before)[:, :split].mean(dim=0)
    others = [k for k in range(split) if k != 2]
    assert moved[2] > 0.5
    assert moved[others].abs().max() < 0.1 * moved[2]
    assert fit.quality[:split].min() > 0.8


def test_bundled_directions_fit_the_bundled_generator(generator: StyleGAN2) -> None:
    arrays, metadata = load_bundled(BUNDLED)
    assert metadata["generator_fingerprint"] == generator.fingerprint, "run python -m saminv.demo.train_directions"
    assert set(arrays) == set(FACTORS)
    assert direction_names(generator) == sorted(FACTORS)
    assert resolve_direction("car_hue", generator).shape == (1, generator.num_styles, generator.style_dim)


def test_another_generator_has_no_names() -> None:
    other = toy_stylegan2()
    assert direction_names(other) == []
    with pytest.raises(InputError, match="none for this generator"):
        resolve_direction("car_hue", other)


@pytest.mark.parametrize("name", ["car_hue", "car_size", "car_x"])
def test_both_signs_move_the_factor_their_way(name: str, generator: StyleGAN2, network: VisionNet) -> None:
    factors = sample_factors(6, seed=31)
    column = FACTOR_INDEX[name]
    factors[:, column] = 0.5
    styles = generator.mapping(code_of_factors(factors, generator.z_dim))
    direction = resolve_direction(name, generator)
    with torch.no_grad():
        pictures = [generator.synthesis(styles + s * direction).clamp(-1, 1) for s in (-1, 0, 1)]
        low, middle, high = (network.factors(picture)[:, column] for picture in pictures)
    period = network.config.period(name)
    up, down = change(middle, high, period).mean(), change(middle, low, period).mean()
    assert 0.4 * AMOUNT < up < 2.5 * AMOUNT
    assert -2.5 * AMOUNT < down < -0.4 * AMOUNT


def effect_of_slots(trial: Trial, name: str, direction: Tensor) -> float:
    """An effect that slots 2 to 5 carry alike, as long as the direction has slots."""
    slots = direction if direction.dim() == 2 else direction.expand(8, -1)
    return 0.2 * float(slots[2:6].any(dim=1).float().mean())


def test_export_writes_a_file_that_loads(tmp_path, generator: StyleGAN2, monkeypatch: pytest.MonkeyPatch) -> None:
    # The measured effects are tested elsewhere; here they would only cost renders.
    monkeypatch.setattr(Trial, "effect", effect_of_slots)
    card = export(generator, tmp_path)
    arrays, metadata = load_bundled(BUNDLED, tmp_path)
    assert metadata["generator_fingerprint"] == generator.fingerprint
    shape = (generator.num_styles, generator.style_dim)
    assert all(torch.isfinite(array).all() and array.shape == shape for array in arrays.values())
    assert card.figures["car_x"] == 0.2
    again = fit_directions(generator)
    lengthened = arrays["car_x"][:6] / again.directions[FACTOR_INDEX["car_x"]]
    assert torch.allclose(lengthened, torch.full_like(lengthened, AMOUNT / 0.2), rtol=1e-3)


def test_a_direction_ends_at_the_last_slot_that_carries_it(
    generator: StyleGAN2, network: VisionNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial.of(generator, network, scenes=1)
    monkeypatch.setattr(Trial, "effect", effect_of_slots)
    found = without_late_slots(trial, "car_x", torch.ones(generator.style_dim))
    assert found.any(dim=1).nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_measured_effects_are_zero_without_directions(generator: StyleGAN2, network: VisionNet) -> None:
    nothing = torch.zeros(len(FACTORS), generator.style_dim)
    assert torch.equal(Trial.of(generator, network, scenes=1).effects(nothing), torch.zeros(len(FACTORS)))

"""The demo world: scenes are functions of their factors, labels are exact, strangers stay within their masks."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import saminv.demo as demo
from saminv._errors import InputError
from saminv.demo._canvas import Canvas, hue_angle, hue_colour, length
from saminv.demo._font import cell_coverage, text_cells
from saminv.demo.scenes import (
    BINARY_FACTORS,
    CONTINUOUS_FACTORS,
    FACTOR_INDEX,
    HUE_ARC,
    SCENE_SEGMENTS,
    SEGMENT_INDEX,
    STRANGER_SEGMENTS,
    car_hue_angle,
    read_car_hue,
    sample_factors,
)
from saminv.demo.strangers import add_strangers


def with_factor(name: str, values: list[float]) -> torch.Tensor:
    """Middling factors but for one, which takes the given values."""
    factors = torch.full((len(values), len(demo.FACTORS)), 0.5)
    factors[:, -len(BINARY_FACTORS) :] = 1.0
    factors[:, FACTOR_INDEX[name]] = torch.tensor(values)
    return factors


def area(batch: demo.SceneBatch, *names: str) -> torch.Tensor:
    labels = torch.tensor([SEGMENT_INDEX[name] for name in names])
    return torch.isin(batch.segments, labels).float().mean(dim=(1, 2))


def centre(batch: demo.SceneBatch) -> torch.Tensor:
    """Mean (x, y) of the car, `[B, 2]`."""
    inside = torch.isin(batch.segments, torch.tensor(demo.CAR_SEGMENTS)).float()
    ramp = torch.linspace(0, 1, inside.shape[-1])
    mass = inside.sum(dim=(1, 2))
    return torch.stack([(inside.sum(1) * ramp).sum(1) / mass, (inside.sum(2) * ramp).sum(1) / mass], dim=1)


def test_names():
    assert len(CONTINUOUS_FACTORS) == 16 and len(BINARY_FACTORS) == 2
    assert len(set(demo.FACTORS)) == 18 and len(set(demo.SEGMENT_NAMES)) == len(demo.SEGMENT_NAMES)
    assert {demo.SEGMENT_NAMES[i] for i in demo.CAR_SEGMENTS} == {"body", "cabin", "windows", "wheels", "lights"}


def test_shapes_and_ranges():
    batch = demo.sample_scenes(3, seed=4)
    assert batch.images.shape == (3, 3, 128, 128) and batch.images.dtype == torch.float32
    assert batch.images.min() >= -1 and batch.images.max() <= 1 and batch.images.std() > 0.2
    assert batch.segments.shape == (3, 128, 128) and batch.segments.dtype == torch.int64
    assert batch.stranger_masks.shape == (3, 1, 128, 128) and not batch.stranger_masks.any()
    assert batch.factors.shape == (3, 18)


@pytest.mark.parametrize("strangers", [False, True])
def test_deterministic_by_seed(strangers):
    first = demo.sample_scenes(4, seed=9, strangers=strangers)
    again = demo.sample_scenes(4, seed=9, strangers=strangers)
    other = demo.sample_scenes(4, seed=10, strangers=strangers)
    for name in ("images", "factors", "segments", "stranger_masks"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.images, other.images)
    fewer = demo.sample_scenes(2, seed=9, strangers=strangers)
    assert torch.equal(fewer.factors, first.factors[:2])
    torch.testing.assert_close(fewer.images, first.images[:2], atol=1e-6, rtol=0)


def test_a_batch_is_its_scenes_alone():
    factors = sample_factors(5, seed=2)
    together = demo.render(factors)
    alone = torch.cat([demo.render(row).images for row in factors.split(1)])
    torch.testing.assert_close(together.images, alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", CONTINUOUS_FACTORS)
def test_every_factor_moves_the_picture_smoothly(name):
    images = demo.render(with_factor(name, [0.0, 0.499, 0.5, 1.0])).images
    assert (images[0] - images[3]).abs().mean() > 2e-3
    assert (images[1] - images[2]).abs().max() < 0.1


def test_binary_factors():
    facing = demo.render(with_factor("facing", [0.0, 1.0]))
    mirrored = facing.segments[0].flip(1)
    car = torch.isin(facing.segments[1], torch.tensor(demo.CAR_SEGMENTS))
    assert (mirrored[car] == facing.segments[1][car]).float().mean() > 0.98
    beams = demo.render(with_factor("headlights", [0.0, 1.0]))
    assert (beams.images[0] - beams.images[1]).abs().max() > 0.3
    assert torch.equal(beams.segments[0], beams.segments[1])


def test_label_areas_follow_the_factors():
    for name, segments, ratio in (
        ("car_size", ("body", "cabin", "windows", "wheels", "lights"), 1.8),
        ("wheel_size", ("wheels",), 1.5),
        ("cabin_height", ("cabin", "windows"), 1.3),
        ("body_length", ("body",), 1.1),
        ("hill_height", ("hills",), 1.05),
    ):
        small, large = area(demo.render(with_factor(name, [0.0, 1.0])), *segments).tolist()
        assert large > ratio * small > 0, name


def test_the_car_moves_by_what_the_factors_say():
    across = centre(demo.render(with_factor("car_x", [0.0, 1.0])))
    assert float(across[1, 0] - across[0, 0]) == pytest.approx(0.32, abs=0.01)
    down = centre(demo.render(with_factor("car_y", [0.0, 1.0])))
    assert float(down[1, 1] - down[0, 1]) == pytest.approx(0.09, abs=0.01)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_every_scene_shows_all_its_parts(seed):
    batch = demo.render(sample_factors(1, seed))
    present = set(batch.segments.unique().tolist())
    assert present == {SEGMENT_INDEX[name] for name in SCENE_SEGMENTS}
    # No part of the car is cut off by the picture's left and right border.
    border = torch.cat([batch.segments[:, :, 0], batch.segments[:, :, -1]], dim=1)
    assert not torch.isin(border, torch.tensor(demo.CAR_SEGMENTS)).any()


def test_labels_mark_the_colours_they_name():
    batch = demo.sample_scenes(8, seed=3)
    inside = batch.segments == SEGMENT_INDEX["sun"]
    colours = (batch.images.permute(0, 2, 3, 1)[inside] + 1) / 2
    # All but the anti-aliased rim is of one colour.
    exact = ((colours - torch.tensor([1.0, 0.93, 0.70])).abs().amax(dim=1) < 1e-4).float().mean()
    assert exact > 0.8
    wheels = (batch.images.amax(dim=1)[batch.segments == SEGMENT_INDEX["wheels"]] + 1) / 2
    assert ((wheels < 0.2) | (wheels > 0.75)).float().mean() > 0.6


def test_resolution_independence():
    factors = sample_factors(4, seed=6)
    small, large = demo.render(factors, 128), demo.render(factors, 256)
    down = F.avg_pool2d(large.images, 2)
    assert (small.images - down).abs().mean() < 2e-3
    assert (small.images - down).square().mean() < 4 / 10**3.8
    sampled = large.segments[:, ::2, ::2]
    assert (sampled == small.segments).float().mean() > 0.98
    # Ground and road end at level lines, where half a row of either size is a matter of rounding.
    for name in ("sky", "sun", "shadow", "body", "cabin", "windows", "wheels", "lights"):
        assert (area(small, name) - area(large, name)).abs().max() < 2e-3, name


def test_edges_are_antialiased_over_one_pixel():
    canvas = Canvas.blank(1, 64, torch.device("cpu"))
    disc = length(canvas.x - 0.5, canvas.y - 0.5) - 0.25
    canvas.paint(disc * 64, torch.ones(1, 3, 1, 1), 5)
    assert float(canvas.image[0, 0].sum()) == pytest.approx(math.pi * 16**2, rel=2e-3)
    partial = (canvas.image[0, 0] > 0) & (canvas.image[0, 0] < 1)
    assert int(partial.sum()) < 2 * 2 * math.pi * 16
    assert torch.equal(canvas.segments[0] == 5, canvas.image[0, 0] > 0.5)


def test_car_hue_is_an_injective_arc_and_reads_back():
    values = torch.linspace(0, 1, 41)
    batch = demo.render(with_factor("car_hue", values.tolist()))
    read = read_car_hue(batch.images, batch.segments)
    assert bool((read.diff() > 0).all())
    assert (read - car_hue_angle(values)).abs().max() < math.radians(1)
    assert float(read[0]) == pytest.approx(HUE_ARC[0], abs=0.1) and float(read[-1]) == pytest.approx(
        HUE_ARC[1], abs=0.1
    )
    assert HUE_ARC[1] - HUE_ARC[0] < 2 * math.pi


@settings(max_examples=50, deadline=None)
@given(angle=st.floats(-3.1, 3.1), chroma=st.floats(0.05, 0.4), light=st.floats(0, 1), gain=st.floats(0.1, 2))
def test_hue_angle_inverts_hue_colour(angle, chroma, light, gain):
    at = torch.full((1, 1, 1, 1), angle, dtype=torch.float64)
    colour = gain * hue_colour(at, chroma, torch.full_like(at, light))
    assert float(hue_angle(colour)) == pytest.approx(angle, abs=1e-9)


def test_factors_from_z_are_uniform_and_independent():
    z = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0))
    factors = demo.factors_from_z(z)
    continuous = factors[:, :16].sort(dim=0).values
    uniform = (torch.arange(20_000) + 0.5) / 20_000
    assert (continuous - uniform[:, None]).abs().max() < 0.02
    binary = factors[:, 16:]
    assert set(binary.unique().tolist()) == {0.0, 1.0}
    assert (binary.mean(dim=0) - 0.5).abs().max() < 0.02
    correlation = torch.corrcoef(factors.T) - torch.eye(18)
    assert correlation.abs().max() < 0.04
    # The mapping network normalises z, so its length must not matter.
    torch.testing.assert_close(demo.factors_from_z(5 * z[:10]), factors[:10], atol=1e-6, rtol=0)


def test_strangers_change_only_what_their_masks_cover():
    plain = demo.sample_scenes(8, seed=11)
    strange = demo.sample_scenes(8, seed=11, strangers=True)
    assert torch.equal(plain.factors, strange.factors)
    outside = (strange.stranger_masks == 0).expand_as(plain.images)
    assert torch.equal(plain.images[outside], strange.images[outside])
    assert strange.images.min() >= -1 and strange.images.max() <= 1
    strangers = strange.segments >= len(SCENE_SEGMENTS)
    mask = strange.stranger_masks[:, 0]
    assert mask.min() >= 0 and mask.max() <= 1
    assert not strangers[mask == 0].any() and strangers[mask > 0.99].all()
    assert torch.equal(plain.segments[~strangers], strange.segments[~strangers])
    share = mask.mean(dim=(1, 2))
    assert (share > 0.01).all() and (share < 0.25).all()
    kinds = [len(labels.unique()) for labels in (strange.segments * strangers).split(1)]
    assert all(2 <= count <= 4 for count in kinds)


@pytest.mark.parametrize("kind", STRANGER_SEGMENTS)
def test_every_kind_of_stranger_shows(kind):
    plain = demo.render(sample_factors(4, seed=1))
    strange = add_strangers(plain, seed=3, kinds=[kind])
    found = strange.segments == SEGMENT_INDEX[kind]
    assert (found.flatten(1).sum(1) > 60).all()
    assert (strange.images - plain.images).abs().amax(dim=(1, 2, 3)).min() > 0.3
    if kind == "decal":
        allowed = torch.tensor([SEGMENT_INDEX["body"], SEGMENT_INDEX["lights"]])
        assert torch.isin(plain.segments[found], allowed).all()
    if kind == "fence":
        car = torch.isin(plain.segments, torch.tensor(demo.CAR_SEGMENTS))
        assert ((found & car).flatten(1).sum(1) > 40).all()
    if kind == "poster":
        assert not torch.isin(plain.segments[found], torch.tensor(demo.CAR_SEGMENTS)).any()


def test_strangers_do_not_change_the_batch_they_are_given():
    plain = demo.render(sample_factors(2, seed=1))
    images, segments = plain.images.clone(), plain.segments.clone()
    add_strangers(plain, seed=0)
    assert torch.equal(plain.images, images) and torch.equal(plain.segments, segments)


def test_strangers_at_another_size_are_the_same():
    small = demo.sample_scenes(3, seed=5, strangers=True, size=128)
    large = demo.sample_scenes(3, seed=5, strangers=True, size=256)
    assert (small.images - F.avg_pool2d(large.images, 2)).abs().mean() < 4e-3
    assert (small.stranger_masks.mean() - large.stranger_masks.mean()).abs() < 2e-3


def test_letters_cover_exactly_their_cells():
    cells = text_cells("ZOO")
    assert cells.shape == (7, 17)
    coverage = cell_coverage(cells, (0.13, 0.21, 0.61, 0.55), 50)
    expected = float(cells.mean()) * 0.48 * 0.34 * 50**2
    assert float(coverage.sum()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "3"])
def test_bad_counts(n):
    with pytest.raises(InputError, match="whole number of scenes"):
        demo.sample_scenes(n)


def test_bad_arguments():
    with pytest.raises(InputError, match="size"):
        demo.sample_scenes(1, size=4)
    with pytest.raises(InputError, match="shape"):
        demo.render(torch.zeros(2, 3))
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        demo.render(torch.full((1, 18), 1.5))
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        demo.render(torch.full((1, 18), float("nan")))
    with pytest.raises(InputError, match="Z >= 18"):
        demo.factors_from_z(torch.zeros(2, 8))
    with pytest.raises(InputError, match="Known: balloon"):
        add_strangers(demo.sample_scenes(1), kinds=["ufo"])

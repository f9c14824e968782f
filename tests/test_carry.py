"""Latents carried over to other regions make about the same picture."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close
from hypothesis import given
from hypothesis import strategies as st
from toys import LinearGenerator, toy_stylegan2

from saminv import Regions
from saminv._types import flatten, map_latents
from saminv.optim.carry import carry_over
from saminv.spaces import resolve_spaces
from saminv.spaces._base import SpaceOptions, space_mask

SPACES = ("W+", "F0", "F1", "F2")


@pytest.fixture(scope="module")
def linear():
    return LinearGenerator()


def drawn(generator, names, regions, seed=0):
    """Spaces, random latents of two images, and a function that renders them under regions."""
    spaces = resolve_spaces(list(names), generator, SpaceOptions())
    styles = generator.mapping(generator.sample_z(2, seed=seed))
    source = torch.Generator().manual_seed(seed)
    latents = {space.name: space.init(generator, styles) for space in spaces}
    for space in spaces:
        if space.spatial:
            noise = torch.randn(latents[space.name]["delta"].shape, generator=source, dtype=styles.dtype)
            latents[space.name] = {"delta": 0.5 * noise}

    def render(latents, regions):
        masks = {space.name: space_mask(space, generator, regions) for space in spaces}
        taps = [tap for s in spaces for tap in s.bind(generator, latents[s.name], masks[s.name])]
        return generator.synthesis(latents["W+"]["w"], taps)

    return spaces, latents, render


def climbing(levels, names, size):
    """Regions of two images whose columns lie in the spaces at positions ``levels``."""
    row = torch.tensor(levels).repeat_interleave(size // len(levels))
    return Regions(row.expand(2, size, size).clone(), tuple(names))


@given(
    before=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    steps=st.lists(st.integers(0, 3), min_size=4, max_size=4),
)
def test_nothing_is_lost_where_layers_add_up(linear, before, steps):
    after = [min(level + step, 3) for level, step in zip(before, steps)]
    one, other = climbing(before, SPACES, 8), climbing(after, SPACES, 8)
    spaces, latents, render = drawn(linear, SPACES, one)
    moved = carry_over(linear, spaces, latents, one, other)
    # Columns that leave W+ had no change of their own; what the later space held there would come in.
    assert_close(render(moved, other), render(latents, one), 1e-9)


@pytest.mark.parametrize(("architecture", "part"), [("orig", 0.2), ("skip", 0.7)])
def test_a_network_comes_closer_to_the_old_picture(architecture, part):
    # With skips, what the earlier layer added to the image itself is lost.
    generator = toy_stylegan2(torch.float64, architecture=architecture)
    names = ("W+", "F4", "F6")
    one, other = climbing([0, 1], names, 32), climbing([0, 2], names, 32)
    spaces, latents, render = drawn(generator, names, one)
    latents["F6"] = map_latents(torch.zeros_like, {"F6": latents["F6"]})["F6"]
    wanted = render(latents, one)
    moved = carry_over(generator, spaces, latents, one, other)
    kept = (render(moved, other) - wanted).square().mean()
    dropped = (render(latents, other) - wanted).square().mean()
    assert kept < part * dropped


def test_the_same_regions_change_nothing_and_the_latents_stay(linear):
    regions = climbing([0, 1, 2, 3], SPACES, 8)
    spaces, latents, _ = drawn(linear, SPACES, regions)
    before = map_latents(torch.clone, latents)
    moved = carry_over(linear, spaces, latents, regions, regions)
    for name, tensor in flatten(moved).items():
        assert_close(tensor + 1, flatten(before)[name] + 1, 1e-12)
    carry_over(linear, spaces, latents, regions, climbing([3, 3, 3, 3], SPACES, 8))
    for name, tensor in flatten(latents).items():
        assert torch.equal(tensor, flatten(before)[name])


def test_styles_alone_have_nothing_to_carry(linear):
    regions = Regions.uniform(2, (8, 8), ("W+",), "W+")
    spaces, latents, _ = drawn(linear, ["W+"], regions)
    moved = carry_over(linear, spaces, latents, regions, regions)
    assert torch.equal(moved["W+"]["w"], latents["W+"]["w"])

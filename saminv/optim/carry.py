"""Going on under other regions without losing what had been reached under the old ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._types import Latents, map_latents
from ..generators._base import AbstractGenerator
from ..regions import Regions
from ..sites import Tap
from ..spaces._base import AbstractSpace, space_mask, style_base


@torch.no_grad()
def carry_over(
    generator: AbstractGenerator,
    spaces: Sequence[AbstractSpace],
    latents: Latents,
    before: Regions,
    after: Regions,
    noise: str = "const",
) -> Latents:
    """Latents that make about the same picture under the regions ``after`` as the given ones under ``before``.

    A segment that moves to a later layer leaves its change of the earlier one behind. What that did to the later
    feature is put into the later space, so that the segment goes on from the quality that it had.

    Args:
        generator: That renders both.
        spaces: Of the latents, by rank.
        latents: Of B images; they are not changed.
        before, after: Regions of the B images.
        noise: Noise mode of the generator.
    """
    base = style_base(spaces)
    styles = base.styles(generator, latents[base.name])
    moved = map_latents(lambda tensor: tensor.clone(), latents)
    spatial = [space for space in spaces if space.spatial]
    sites = [space.sites(generator)[0] for space in spatial]
    if not sites:
        return moved
    wanted = generator.synthesis(styles, _taps(generator, spaces, latents, before), noise=noise, until=sites)
    for space, site in zip(spatial, sites):
        found = generator.synthesis(styles, _taps(generator, spaces, moved, after), noise=noise, until=site)
        mask = space_mask(space, generator, after)
        assert isinstance(wanted, dict) and isinstance(found, dict) and mask is not None
        moved[space.name] = space.shift(moved[space.name], _within(wanted[site] - found[site], mask))
    return moved


def _taps(
    generator: AbstractGenerator, spaces: Sequence[AbstractSpace], latents: Latents, regions: Regions
) -> list[Tap]:
    masks = {space.name: space_mask(space, generator, regions) for space in spaces}
    return [tap for space in spaces for tap in space.bind(generator, latents[space.name], masks[space.name])]


def _within(difference: Tensor, mask: Tensor) -> Tensor:
    """A difference `[B, C, h, w]` where the mask `[B, 1, h, w]` lets it have an effect."""
    return difference * (mask > 0)

"""Applying a direction to an inversion: each segment is modulated by the edited styles after its space's layer only.

Reference:
    Parmar, 2022, CMU-RI-TR-22-26 (arXiv 2206.08357), section 3.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .._types import Features, Latents, map_latents
from ..generators import AbstractGenerator
from ..generators._base import WEIGHTS
from ..regions import Regions
from ..sites import Replace
from ..solution import Solution
from ..spaces import AbstractSpace, resolve_spaces
from ..spaces._base import SpaceOptions, latent_styles, space_mask, style_base
from .change import AbstractDirection, Change
from .channels import shifted
from .within import freeze, frozen_sites


@torch.no_grad()
def render_edit(
    generator: AbstractGenerator,
    spaces: Sequence[AbstractSpace],
    latents: Latents,
    regions: Regions,
    change: Tensor | Change,
    noise: str = "const",
    inside: Tensor | None = None,
) -> Tensor:
    """Render latents `[B, ...]` with a change of the styles `[1 or B, L, D]`, or of channels too.

    Segments of the style space see the changed styles in all layers, segments of F<l> in the layers after l; what comes
    before is frozen at its unedited value. So is everything outside of ``inside``, bool `[B, 1, H, W]`, if it is given.

    Returns:
        `[B, 3, H, W]`.
    """
    change = change if isinstance(change, Change) else Change(change)
    base = style_base(spaces)
    styles = latent_styles(generator, spaces, latents)
    others = [space for space in spaces if space is not base]
    masks = {space.name: space_mask(space, generator, regions) for space in others}

    def look(sites: Iterable[str], with_twins: bool) -> Features:
        """Unedited tensors at some sites."""
        names = list(dict.fromkeys(sites))
        chosen = [space for space in others if with_twins or not space.twin]
        taps = [tap for s in chosen for tap in s.bind(generator, latents[s.name], masks[s.name])]
        found = generator.synthesis(styles, taps, noise=noise, until=names) if names else {}
        assert isinstance(found, dict)
        return found

    frozen = [name for space in others for name in space.frozen_sites(generator)]
    unedited = {
        **look(frozen if inside is None else [*frozen, *frozen_sites(generator)], with_twins=True),
        **look((name for space in others for name in space.reference_sites(generator)), with_twins=False),
    }
    edited = [t for s in others for t in s.edit_taps(generator, latents[s.name], masks[s.name], unedited)]
    edited += [] if inside is None else freeze(generator, inside, unedited, regions)
    with shifted(generator, change.channels):
        image = generator.synthesis(styles, [Replace("styles", styles + change.styles), *edited], noise=noise)
    assert isinstance(image, Tensor)
    return image


def solution_spaces(solution: Solution) -> tuple[AbstractSpace, ...]:
    """The spaces a solution was made with, with their options."""
    options = SpaceOptions(**solution.provenance.get("space_options", {}), label=solution.provenance.get("label"))
    return resolve_spaces(list(solution.latents), solution.generator, options)


@torch.no_grad()
def solution_styles(solution: Solution) -> Tensor:
    """Styles `[B, L, D]` of a solution that has its generator."""
    return latent_styles(solution.generator, solution_spaces(solution), solution.latents)


@torch.no_grad()
def edit_at(solution: Solution, direction: AbstractDirection, strength: Tensor, inside: Tensor | None = None) -> Tensor:
    """An edit with a strength for each image.

    Args:
        solution: Of B images, with its generator.
        direction: What to change.
        strength: `[B]`.
        inside: Where the edit acts, bool `[B, 1, H, W]`; everywhere if None.

    Returns:
        `[B, 3, H, W]`; outside of ``inside`` it is the solution's picture.
    """
    generator, spaces = solution.generator, solution_spaces(solution)
    latents = map_latents(lambda tensor: tensor.detach(), solution.latents)
    change = direction.change(latent_styles(generator, spaces, latents), strength)
    if change.channels and len(solution) > 1 and any(WEIGHTS in space.sites(generator) for space in spaces):
        # Images with weights of their own go through the layers one by one; what is added there has a row for each.
        rows = [slice(row, row + 1) for row in range(len(solution))]
        masks = [None if inside is None else inside[row] for row in rows]
        return torch.cat([edit_at(solution[row], direction, strength[row], mask) for row, mask in zip(rows, masks)])
    noise = solution.provenance.get("noise", "const")
    image = render_edit(generator, spaces, latents, solution.regions, change, noise, inside)
    return image if inside is None else torch.where(inside, image, solution.image)

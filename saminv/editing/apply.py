"""Applying a direction to an inversion: each segment is modulated by the edited styles after its space's layer only.

Reference:
    Parmar, 2022, CMU-RI-TR-22-26 (arXiv 2206.08357), section 3.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .._types import Features, Latents
from ..generators import AbstractGenerator
from ..regions import Regions
from ..sites import Replace
from ..solution import Solution
from ..spaces import AbstractSpace, AbstractStyleSpace, resolve_spaces
from ..spaces._base import SpaceOptions, space_mask
from .change import Change
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

    Segments of W+ see the changed styles in all layers, segments of F<l> in the layers after l; what comes before is
    frozen at its unedited value. So is everything outside of ``inside``, bool `[B, 1, H, W]`, if it is given.

    Returns:
        `[B, 3, H, W]`.
    """
    change = change if isinstance(change, Change) else Change(change)
    base = next(space for space in spaces if isinstance(space, AbstractStyleSpace))
    styles = base.styles(generator, latents[base.name])
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

"""Applying a direction to an inversion: each segment is modulated by the edited styles after its space's layer only.

Reference:
    Parmar, 2022, CMU-RI-TR-22-26 (arXiv 2206.08357), section 3.4.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from .._types import Features, Latents, map_latents
from ..generators import AbstractGenerator
from ..regions import Regions
from ..sites import Replace
from ..solution import Solution
from ..spaces import AbstractSpace, resolve_spaces
from ..spaces._base import SpaceOptions, latent_styles, space_mask, style_base
from .directions import resolve_direction


@torch.no_grad()
def render_edit(
    generator: AbstractGenerator,
    spaces: Sequence[AbstractSpace],
    latents: Latents,
    regions: Regions,
    change: Tensor,
    noise: str = "const",
) -> Tensor:
    """Render latents `[B, ...]` with a change of the styles `[1 or B, L, D]`.

    Segments of the style space see the changed styles in all layers, segments of F<l> in the layers after l; what comes
    before is frozen at its unedited value.

    Returns:
        `[B, 3, H, W]`.
    """
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

    unedited = {
        **look((name for space in others for name in space.frozen_sites(generator)), with_twins=True),
        **look((name for space in others for name in space.reference_sites(generator)), with_twins=False),
    }
    edited = [t for s in others for t in s.edit_taps(generator, latents[s.name], masks[s.name], unedited)]
    image = generator.synthesis(styles, [Replace("styles", styles + change), *edited], noise=noise)
    assert isinstance(image, Tensor)
    return image


def solution_spaces(solution: Solution) -> tuple[AbstractSpace, ...]:
    """The spaces a solution was made with, with their options."""
    options = SpaceOptions(**solution.provenance.get("space_options", {}), label=solution.provenance.get("label"))
    return resolve_spaces(list(solution.latents), solution.generator, options)


def _strengths(strength: Any) -> list[float]:
    """One strength or several as a list.

    Raises:
        InputError: If it is anything but finite numbers.
    """
    try:
        found = torch.as_tensor(strength, dtype=torch.float64).reshape(-1).tolist()
    except (TypeError, ValueError, RuntimeError):
        found = []
    if not found or not all(math.isfinite(s) for s in found):
        raise InputError(f"strength must be a finite number or a non-empty list of them, got {strength!r}.")
    return found


def edit_solution(solution: Solution, direction: Any, strength: float | Sequence[float] = 1.0) -> Tensor:
    """See :meth:`saminv.Solution.edit`."""
    if solution.generator is None:
        raise InputError("This solution has no generator; load it with Solution.load(path, generator=...).")
    strengths = _strengths(strength)
    change = resolve_direction(direction, solution.generator, solution.provenance.get("label"))
    spaces = solution_spaces(solution)
    latents = map_latents(lambda tensor: tensor.detach(), solution.latents)
    noise = solution.provenance.get("noise", "const")
    images = [render_edit(solution.generator, spaces, latents, solution.regions, s * change, noise) for s in strengths]
    return torch.stack(images, dim=1).flatten(0, 1)

"""How much of an edit comes through: a number beside every PSNR, for any generator and without a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ..generators import AbstractGenerator
from ..solution import Solution
from ..spaces import AbstractStyleSpace
from .apply import solution_spaces
from .directions import resolve_direction
from .edits import edit_solution

COMPONENTS = 5


@torch.no_grad()
def editability(solution: Solution, directions: Sequence[Any] | None = None, strength: float = 1.0) -> Tensor:
    """Part of an edit's change that reaches the picture: 1 as in W+, 0 not at all.

    For each direction, the change of the solution's picture is projected on the change that the same edit makes to the
    picture of its styles alone. The parts are averaged over the directions.

    Args:
        solution: Of B images, with its generator.
        directions: As for :meth:`saminv.Solution.edit`; the first principal components of w, one standard deviation
            long, where None.
        strength: Multiple of each direction.

    Returns:
        `[B]`, near [0, 1]; not a number where no direction changes the picture of the styles.

    Raises:
        InputError: If the solution has no generator, or there is no direction.
    """
    generator = solution.generator
    if generator is None:
        raise InputError("This solution has no generator; load it with Solution.load(path, generator=...).")
    chosen = principal_directions(generator, solution.provenance.get("label")) if directions is None else directions
    if not len(chosen):
        raise InputError("There is no direction to edit along; name at least one.")
    base = next(space for space in solution_spaces(solution) if isinstance(space, AbstractStyleSpace))
    styles = base.styles(generator, solution.latents[base.name])
    noise = solution.provenance.get("noise", "const")
    plain = _picture(generator, styles, noise)
    parts = []
    for direction in chosen:
        change = strength * resolve_direction(direction, generator)
        wanted = _picture(generator, styles + change, noise) - plain
        got = edit_solution(solution, direction, strength).clamp(-1, 1) - solution.image.clamp(-1, 1)
        parts.append((got * wanted).sum(dim=(1, 2, 3)) / wanted.square().sum(dim=(1, 2, 3)))
    found = torch.stack(parts)
    return found.where(found.isfinite(), torch.nan).nanmean(dim=0)


@torch.no_grad()
def principal_directions(generator: AbstractGenerator, label: Any = None, count: int = COMPONENTS) -> list[Tensor]:
    """The first principal components of w, one standard deviation long, `[D]` each."""
    factor = generator.statistics(label).factor_w
    variance, vectors = torch.linalg.eigh(factor @ factor.t())
    found = (vectors * variance.clamp_min(0).sqrt()).flip(1)[:, :count].t()
    # The sign of an eigenvector is chance; its largest entry is made positive.
    signs = found.gather(1, found.abs().argmax(dim=1, keepdim=True)).sign()
    return list((found * signs).float())


def _picture(generator: AbstractGenerator, styles: Tensor, noise: str) -> Tensor:
    image = generator.synthesis(styles, noise=noise)
    assert isinstance(image, Tensor)
    return image.clamp(-1, 1)

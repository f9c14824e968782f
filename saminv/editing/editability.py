"""How much of an edit comes through: a number beside every PSNR, for any generator and without a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ..generators import AbstractGenerator
from ..solution import Solution
from .apply import solution_styles
from .change import Change
from .channels import shifted
from .edits import edit_solution
from .references import find_direction

COMPONENTS = 5


@torch.no_grad()
def editability(solution: Solution, directions: Sequence[Any] | None = None, strength: float = 1.0) -> Tensor:
    """Part of an edit's change that reaches the picture: 1 as in W+, 0 not at all.

    For each direction, the change of the solution's picture is projected on the change that the same edit makes to the
    picture of its styles alone. The parts are averaged over the directions.

    Args:
        solution: Of B images, with its generator.
        directions: As for :meth:`saminv.Solution.edit`; the first principal components of the styles, one standard
            deviation long, where None.
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
    styles, noise = solution_styles(solution), solution.provenance.get("noise", "const")
    amount = torch.full((len(solution),), float(strength), dtype=torch.float64)
    plain = _picture(generator, styles, Change(torch.zeros_like(styles)), noise)
    parts = []
    for direction in chosen:
        found = find_direction(direction, generator, solution.provenance.get("label"))
        wanted = _picture(generator, styles, found.change(styles, amount), noise) - plain
        got = edit_solution(solution, found, strength).clamp(-1, 1) - solution.image.clamp(-1, 1)
        parts.append((got * wanted).sum(dim=(1, 2, 3)) / wanted.square().sum(dim=(1, 2, 3)))
    shares = torch.stack(parts)
    return shares.where(shares.isfinite(), torch.nan).nanmean(dim=0)


@torch.no_grad()
def principal_directions(generator: AbstractGenerator, label: Any = None, count: int = COMPONENTS) -> list[Tensor]:
    """The first principal components of random styles, one standard deviation long, `[D]` each."""
    factor = generator.style_factor(label)
    variance, vectors = torch.linalg.eigh(factor @ factor.t())
    found = (vectors * variance.clamp_min(0).sqrt()).flip(1)[:, :count].t()
    # The sign of an eigenvector is chance; its largest entry is made positive.
    signs = found.gather(1, found.abs().argmax(dim=1, keepdim=True)).sign()
    return list((found * signs).float())


def _picture(generator: AbstractGenerator, styles: Tensor, change: Change, noise: str) -> Tensor:
    with shifted(generator, change.channels):
        image = generator.synthesis(styles + change.styles, noise=noise)
    assert isinstance(image, Tensor)
    return image.clamp(-1, 1)

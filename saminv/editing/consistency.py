"""Whether an inversion knows its own edits: edit, invert the edited picture, undo the edit, compare with the start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ..metrics import latent_editing_consistency
from ..solution import Solution
from ..spaces import AbstractStyleSpace
from ..spaces.priors import prior_distance
from .apply import edit_solution, solution_spaces
from .directions import resolve_direction


@dataclass(frozen=True)
class EditingConsistency:
    """What a round of :func:`editing_consistency` gave.

    Attributes:
        latent: Distance between the codes before and after the round `[B]`: the LEC of the e4e paper, in W+.
        relative: The same in lengths of the edit `[B]`, which compares between generators: 0 if the code came back, 1
            if it is as far off as the edit is long.
        edited: The edited pictures that were inverted `[B, 3, H, W]` in [-1, 1].
        returned: The pictures after the opposite edit, to be compared with those of the solution by any metric: what
            spaces beside W+ hold shows here, and not in the codes.
    """

    latent: Tensor
    relative: Tensor
    edited: Tensor
    returned: Tensor


@torch.no_grad()
def editing_consistency(
    solution: Solution, direction: Any, strength: float = 1.0, *, invert: Callable[[Tensor], Solution]
) -> EditingConsistency:
    """Edit a solution, invert the edited pictures, undo the edit, and compare with the solution.

    Args:
        solution: Of B images, with its generator.
        direction: As for :meth:`saminv.Solution.edit`.
        strength: Multiple of the direction.
        invert: The method under test: pictures `[B, 3, H, W]` in [-1, 1] to a solution of the same generator, such as
            ``functools.partial(saminv.invert, spaces=["W+"], generator=...)``.

    Raises:
        InputError: If the solution has no generator, the edit changes nothing, or ``invert`` returns something else.

    Reference:
        O. Tov et al., 2021, arXiv:2102.02766, latent editing consistency (LEC).
    """
    if solution.generator is None:
        raise InputError("This solution has no generator; load it with Solution.load(path, generator=...).")
    change = strength * resolve_direction(direction, solution.generator)
    length = change.flatten(1).norm(dim=1)
    if not bool((length > 0).all()):
        raise InputError(f"An edit of strength {strength} changes nothing; there is no way back to measure.")
    edited = edit_solution(solution, direction, strength).clamp(-1, 1)
    with torch.enable_grad():
        again = invert(edited)
    styles = _styles(solution)
    if not isinstance(again, Solution) or again.generator is None or _styles(again).shape != styles.shape:
        raise InputError(
            f"invert must return a solution of the same {len(styles)} pictures and generator, not {again!r:.200}."
        )
    latent = latent_editing_consistency(styles, _styles(again) - change)
    returned = edit_solution(again, direction, -strength).clamp(-1, 1)
    return EditingConsistency(latent, latent / length, edited, returned)


@torch.no_grad()
def latent_distance(solution: Solution) -> Tensor:
    """How unlikely a solution's styles are under the prior, see :func:`saminv.spaces.priors.prior_distance`.

    Args:
        solution: Of B images, with its generator.

    Returns:
        `[B]`, float64, at least 0.

    Raises:
        InputError: If the solution has no generator.
    """
    if solution.generator is None:
        raise InputError("This solution has no generator; load it with Solution.load(path, generator=...).")
    return prior_distance(_styles(solution), solution.generator.statistics(solution.provenance.get("label")))


def _styles(solution: Solution) -> Tensor:
    """Styles `[B, L, D]` of a solution."""
    base = next(space for space in solution_spaces(solution) if isinstance(space, AbstractStyleSpace))
    return base.styles(solution.generator, solution.latents[base.name])

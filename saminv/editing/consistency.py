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
from ..spaces.priors import style_distance
from .apply import solution_styles
from .channels import pulled_back
from .edits import edit_solution
from .references import find_direction


@dataclass(frozen=True)
class EditingConsistency:
    """What a round of :func:`editing_consistency` gave.

    Attributes:
        latent: Distance between the styles before and after the round `[B]`: the LEC of the e4e paper.
        relative: The same in lengths of the edit `[B]`, which compares between generators: 0 if the code came back, 1
            if it is as far off as the edit is long.
        edited: The edited pictures that were inverted `[B, 3, H, W]` in [-1, 1].
        returned: The pictures after the opposite edit, to be compared with those of the solution by any metric: what
            spaces beside the style space hold shows here, and not in the styles.
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
        direction: As for :meth:`saminv.Solution.edit`; edits of channels count by the change of the styles that comes
            nearest to them.
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
    generator, styles = solution.generator, solution_styles(solution)
    found = find_direction(direction, generator, solution.provenance.get("label"))
    there, back = (torch.full((len(solution),), sign * strength, dtype=torch.float64) for sign in (1, -1))
    length = pulled_back(generator, found.change(styles, there)).flatten(1).norm(dim=1)
    if not bool((length > 0).all()):
        raise InputError(f"An edit of strength {strength} changes nothing; there is no way back to measure.")
    edited = edit_solution(solution, found, strength).clamp(-1, 1)
    with torch.enable_grad():
        again = invert(edited)
    reached = solution_styles(again) if isinstance(again, Solution) and again.generator is not None else None
    if reached is None or reached.shape != styles.shape:
        raise InputError(
            f"invert must return a solution of the same {len(styles)} pictures and generator, not {again!r:.200}."
        )
    undone = reached + pulled_back(generator, found.change(reached, back))
    latent = latent_editing_consistency(styles, undone)
    returned = edit_solution(again, found, -strength).clamp(-1, 1)
    return EditingConsistency(latent, latent / length, edited, returned)


@torch.no_grad()
def latent_distance(solution: Solution) -> Tensor:
    """How unlikely a solution's styles are under the prior, see :func:`saminv.spaces.priors.style_distance`.

    Args:
        solution: Of B images, with its generator.

    Returns:
        `[B]`, float64, at least 0.

    Raises:
        InputError: If the solution has no generator.
    """
    if solution.generator is None:
        raise InputError("This solution has no generator; load it with Solution.load(path, generator=...).")
    return style_distance(solution.generator, solution_styles(solution), solution.provenance.get("label"))

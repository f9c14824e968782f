"""Edits of a solution: by any direction or several, with given or safe strengths, everywhere or within one segment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ..segment import SEGMENTERS, AbstractSegmenter
from ..solution import Solution
from .apply import edit_at
from .change import AbstractDirection
from .references import find_direction
from .safe import Bounds, safe_strength
from .within import Within, segment_mask, widened


def edit_solution(
    solution: Solution,
    direction: Any,
    strength: float | Sequence[float] = 1.0,
    *,
    safe: bool | Bounds = False,
    within: Within | None = None,
    follow: str | AbstractSegmenter | None = "auto",
) -> Tensor:
    """See :meth:`saminv.Solution.edit`."""
    return applied_edit(solution, direction, strength, safe=safe, within=within, follow=follow)[0]


def applied_edit(
    solution: Solution,
    direction: Any,
    strength: float | Sequence[float] = 1.0,
    *,
    safe: bool | Bounds = False,
    within: Within | None = None,
    follow: str | AbstractSegmenter | None = "auto",
) -> tuple[Tensor, Tensor]:
    """What :func:`edit_solution` returns, and the multiples of the direction that were applied, float64 `[B, K]`.

    The multiples are the strengths themselves unless these are parts of the safe ones.
    """
    if solution.generator is None:
        raise InputError("This solution has no generator; load it with Solution.load(path, generator=...).")
    strengths = _strengths(strength)
    found = find_direction(direction, solution.generator, solution.provenance.get("label"))
    limits = _limits(solution, found, strengths, safe)
    mask = None if within is None else segment_mask(solution, within)
    amounts = torch.stack([limits[math.copysign(1, value)] * value for value in strengths], dim=1)
    images = []
    for amount in amounts.unbind(1):
        inside = None if mask is None else _inside(solution, found, amount, mask, within, follow)
        images.append(edit_at(solution, found, amount, inside))
    return torch.stack(images, dim=1).flatten(0, 1), amounts


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


def _limits(
    solution: Solution, direction: AbstractDirection, strengths: Sequence[float], safe: bool | Bounds
) -> dict[float, Tensor]:
    """What strengths are multiples of, `[B]`, by their sign."""
    signs = {math.copysign(1, value) for value in strengths}
    if not safe:
        ones = torch.ones(len(solution), dtype=torch.float64, device=solution.image.device)
        return dict.fromkeys(signs, ones)
    bounds = safe if isinstance(safe, Bounds) else Bounds()
    return {sign: safe_strength(solution, direction, sign, bounds) for sign in signs}


def _inside(
    solution: Solution, direction: AbstractDirection, strength: Tensor, mask: Tensor, within: Any, follow: Any
) -> Tensor:
    """Where an edit of a segment acts: where the segment is, and where the edit takes it."""
    segmenter = _follower(solution, within, follow)
    if segmenter is None:
        return widened(mask)
    edited = torch.nan_to_num(edit_at(solution, direction, strength)).clamp(-1, 1)
    after = segmenter(edited)
    classes = {name.casefold() for name in _classes(within)}
    ids = [label for label, name in after.names.items() if name.casefold() in classes]
    moved = torch.isin(after.ids, torch.tensor(ids, dtype=torch.int64, device=after.ids.device))
    return widened(mask | moved[:, None].to(mask.device))


def _classes(within: Any) -> list[str]:
    """The names of classes among what says where an edit acts: ids and masks stay where they are."""
    words = [] if isinstance(within, Tensor) else [within] if isinstance(within, (str, int)) else within
    return [word for word in words if isinstance(word, str) and not word.isdigit()]


def _follower(solution: Solution, within: Any, follow: Any) -> AbstractSegmenter | None:
    """What finds a segment again after an edit; only classes can be found again."""
    if not _classes(within) or follow is None:
        return None
    if isinstance(follow, AbstractSegmenter):
        return follow
    name = solution.provenance.get("segmenter") if follow == "auto" else follow
    if follow == "auto" and name not in SEGMENTERS:
        return None
    return SEGMENTERS.get(str(name))()

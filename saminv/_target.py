"""What ``tau="auto"`` has to reach."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ._errors import InputError


@dataclass(frozen=True)
class Target:
    """What an inversion has to reach.

    Attributes:
        stat: Name of the number in a solution's stats.
        value: To reach.
        rising: Whether larger values are better.
    """

    stat: str
    value: float
    rising: bool

    def met(self, stats: Mapping[str, Tensor]) -> bool:
        """Whether the numbers of one image, each `[1]`, reach it."""
        value = float(stats[self.stat][0])
        return value >= self.value if self.rising else value <= self.value

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.stat} {'>=' if self.rising else '<='} {self.value:g}"


def make_target(psnr: float | None, lpips: float | None, metric: str) -> Target:
    """The target that exactly one of two arguments gives; ``metric`` is what the second one counts in.

    Raises:
        InputError: If none or both are given, or it is no number that can be reached.
    """
    if (psnr is None) == (lpips is None):
        raise InputError("tau='auto' needs one target: target_psnr in dB, or target_lpips.")
    value = psnr if lpips is None else lpips
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"A target must be a finite number, got {value!r}.")
    if lpips is None:
        return Target("psnr", float(value), True)
    if value <= 0:
        raise InputError(f"target_lpips must be above 0, got {value!r}.")
    return Target(metric, float(value), False)

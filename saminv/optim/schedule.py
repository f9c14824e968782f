"""Learning-rate schedules over a per-image clock."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """Linear ramp-up and cosine ramp-down.

    Attributes:
        ramp_up: Share of the run over which the rate rises from 0.
        ramp_down: Share of the run, at its end, over which it falls to 0.
        first: What the clock shows at the first step. 0 is the published schedule, whose first step has rate 0.

    Reference:
        Karras et al., 2020, arXiv 1912.04958, appendix D.
    """

    ramp_up: float = 0.05
    ramp_down: float = 0.25
    first: int = 1

    def __call__(self, step: Tensor, horizon: int) -> Tensor:
        """Factor on the rate `[B]` in [0, 1] at each image's step `[B]`, counted from 0."""
        t = (step.double() + self.first) / max(horizon + self.first, 1)
        down = ((1 - t) / self.ramp_down).clamp(0, 1) if self.ramp_down else torch.ones_like(t)
        up = (t / self.ramp_up).clamp(0, 1) if self.ramp_up else torch.ones_like(t)
        return (0.5 - 0.5 * torch.cos(math.pi * down)) * up

    def descent(self, horizon: int) -> int:
        """Step at which the ramp-down begins."""
        return int((1 - self.ramp_down) * horizon)

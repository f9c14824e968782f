"""Plain torch sum of squares."""

from __future__ import annotations

from torch import Tensor

from .._precision import widen


def scaled_square(x: Tensor, units: Tensor | None) -> Tensor:
    """See :func:`saminv.ops.scaled_square.scaled_square`."""
    x = widen(x) if units is None else widen(x) / widen(units)[:, None, None]
    return x.square().flatten(1).sum(dim=1)

"""Plain torch deviation of slots."""

from __future__ import annotations

import torch
from torch import Tensor

from .._precision import widen


def deviation(styles: Tensor, squared: bool) -> Tensor:
    """See :func:`saminv.ops.deviation.deviation`."""
    styles = widen(styles)
    squares = (styles[:, 1:] - styles[:, :1]).square().sum(dim=2)
    return (squares if squared else _root(squares)).sum(dim=1)


def _root(squares: Tensor) -> Tensor:
    """Square root with slope zero at zero."""
    positive = squares > 0
    # The inner where keeps the unused branch's gradient finite.
    return torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0)

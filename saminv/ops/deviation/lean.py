"""The deviation of slots with its gradient in one go."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .._precision import widen
from .._value_and_gradient import value_and_gradient
from .reference import deviation as reference


def _compute(styles: Tensor, by_styles: bool, squared: bool) -> tuple[Tensor, Tensor | None]:
    styles = widen(styles)
    # The row of the first slot is zero, and takes what the others send back.
    difference = styles - styles[:, :1]
    norms = difference.square().sum(dim=2)
    norms = norms if squared else norms.sqrt_()
    value = norms.sum(dim=1)
    if not by_styles:
        return value, None
    if squared:
        difference *= 2.0
    else:
        difference /= torch.where(norms > 0, norms, 1.0)[:, :, None]
    difference[:, 0] = -difference[:, 1:].sum(dim=1)
    return value, difference


def deviation(styles: Tensor, squared: bool) -> Tensor:
    """See :func:`saminv.ops.deviation.deviation`."""
    return value_and_gradient(
        styles, functools.partial(_compute, squared=squared), functools.partial(reference, squared=squared)
    )

"""Plain torch step of Adam."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._types import per_image


@torch.no_grad()
def adam_step(
    x: Tensor | None,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    rate: Tensor,
    second_bias: Tensor,
    *,
    betas: tuple[float, float],
    eps: float,
    scale: Tensor | float,
    mask: Tensor | None,
) -> Tensor:
    """See :func:`saminv.ops.adam_step.adam_step`."""
    if mask is not None:
        # What is not a number outside of the mask must not come in.
        there = mask != 0
        before = first.clone(), second.clone()
        gradient = torch.where(there, gradient, 0.0)
    first.lerp_(gradient, 1 - betas[0])
    second.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    denominator = second.sqrt().div_(per_image(second_bias.sqrt(), second).to(second.dtype)).add_(eps)
    step = per_image(rate, gradient).to(gradient.dtype) * scale
    move = torch.div(first, denominator, out=denominator).mul_(step)
    if mask is not None:
        first.copy_(torch.where(there, first, before[0]))
        second.copy_(torch.where(there, second, before[1]))
        move = torch.where(there, move, 0.0)
    return move if x is None else x.sub_(move)

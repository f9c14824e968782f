"""Regularisers whose value and gradient are computed together, so that the backward only multiplies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._types import per_image
from ._dispatch import gradients_by

Compute = Callable[[Tensor, bool], tuple[Tensor, "Tensor | None"]]
"""Value `[B]` of `[B, ...]`, and its gradient where it is asked for."""


class _Together(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        x, compute, ctx.reference = arguments
        value, gradient = compute(x, ctx.needs_input_grad[0])
        ctx.save_for_backward(x, gradient)
        result: Tensor = value
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        x, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():
            return gradients_by(ctx.reference, (x,), (True,), gradients[0])[0], None, None
        return (gradient * per_image(gradients[0], gradient)).to(x.dtype), None, None


def value_and_gradient(x: Tensor, compute: Compute, reference: Callable[[Tensor], Tensor]) -> Tensor:
    """The value `[B]` of a regulariser of `[B, ...]`; ``reference`` is differentiated for gradients of gradients."""
    result: Tensor = _Together.apply(x, compute, reference)
    return result

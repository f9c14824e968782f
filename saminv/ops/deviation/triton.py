"""The deviation of slots with its gradient in one kernel: a program for each image goes through its slots."""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._layout import power_of_two
from .._value_and_gradient import value_and_gradient
from .reference import deviation as reference


@triton.jit
def _deviation(
    styles, value, gradient, slots, dim, SQUARED: tl.constexpr, GRADIENT: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    c = tl.arange(0, BLOCK_C)
    at, there = tl.program_id(0) * slots * dim + c, c < dim
    first = tl.load(styles + at, mask=there, other=0.0).to(tl.float32)
    back, total = tl.zeros([BLOCK_C], tl.float32), tl.zeros([BLOCK_C], tl.float32)
    for slot in range(1, slots):
        d = tl.load(styles + at + slot * dim, mask=there, other=0.0).to(tl.float32) - first
        if SQUARED:
            total += d * d
            through = 2.0 * d
        else:
            norm = tl.sqrt(tl.sum(d * d, axis=0))
            total += tl.where(c == 0, norm, 0.0)
            through = d / tl.where(norm > 0, norm, 1.0)
        back -= through
        if GRADIENT:
            tl.store(gradient + at + slot * dim, through, mask=there)
    tl.store(value + tl.program_id(0), tl.sum(total, axis=0))
    if GRADIENT:
        tl.store(gradient + at, back, mask=there)


def _compute(styles: Tensor, by_styles: bool, squared: bool) -> tuple[Tensor, Tensor | None]:
    styles = styles.contiguous()
    batch, slots, dim = styles.shape
    value = styles.new_empty(batch, dtype=torch.float32)
    gradient = torch.empty_like(styles, dtype=torch.float32) if by_styles else None
    flags = {"SQUARED": squared, "GRADIENT": by_styles, "BLOCK_C": power_of_two(dim)}
    _deviation[(batch,)](styles, value, gradient, slots, dim, **flags)
    return value, gradient


def deviation(styles: Tensor, squared: bool) -> Tensor:
    """See :func:`saminv.ops.deviation.deviation`."""
    return value_and_gradient(
        styles, functools.partial(_compute, squared=squared), functools.partial(reference, squared=squared)
    )

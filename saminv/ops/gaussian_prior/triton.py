"""The Gaussian prior with its gradient: two kernels around the product with the precision, which is torch's.

Sums of rows are added up afterwards in a fixed order.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._layout import power_of_two
from .._value_and_gradient import value_and_gradient
from .reference import gaussian_prior as reference


@triton.jit
def _centred(styles, centre, difference, dim, slope, BLOCK_C: tl.constexpr):
    c = tl.arange(0, BLOCK_C)
    at, there = tl.program_id(0) * dim + c, c < dim
    w = tl.load(styles + at, mask=there, other=0.0).to(tl.float64)
    v = tl.where(w > 0, w, w * slope) - tl.load(centre + c, mask=there, other=0.0).to(tl.float64)
    tl.store(difference + at, v, mask=there)


@triton.jit
def _summed(styles, difference, product, sums, gradient, dim, slope, GRADIENT: tl.constexpr, BLOCK_C: tl.constexpr):
    row, c = tl.program_id(0), tl.arange(0, BLOCK_C)
    at, there = row * dim + c, c < dim
    v = tl.load(difference + at, mask=there, other=0.0).to(tl.float64)
    p = tl.load(product + at, mask=there, other=0.0).to(tl.float64)
    tl.store(sums + row, tl.sum(p * v, axis=0))
    if GRADIENT:
        w = tl.load(styles + at, mask=there, other=0.0).to(tl.float32)
        tl.store(gradient + at, 2.0 * tl.where(w > 0, p, p * slope), mask=there)


def _compute(
    styles: Tensor, by_styles: bool, centre: Tensor, precision: Tensor, slope: float
) -> tuple[Tensor, Tensor | None]:
    styles = styles.contiguous()
    batch, slots, dim = styles.shape
    difference = torch.empty_like(styles, dtype=torch.float64)
    sums = styles.new_empty((batch, slots), dtype=torch.float64)
    gradient = torch.empty_like(difference) if by_styles else None
    rows, block = (batch * slots,), power_of_two(dim)
    _centred[rows](styles, centre, difference, dim, slope, BLOCK_C=block)
    product = difference @ precision.double()
    _summed[rows](styles, difference, product, sums, gradient, dim, slope, GRADIENT=by_styles, BLOCK_C=block)
    return sums.sum(dim=1), gradient


def gaussian_prior(styles: Tensor, centre: Tensor, precision: Tensor, slope: float) -> Tensor:
    """See :func:`saminv.ops.gaussian_prior.gaussian_prior`."""
    constants: dict[str, Any] = {"centre": centre.contiguous(), "precision": precision, "slope": slope}
    return value_and_gradient(
        styles, functools.partial(_compute, **constants), functools.partial(reference, **constants)
    )

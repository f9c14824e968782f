"""Sum of squares in one pass, and its derivative in another; partial sums are added up in a fixed order."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._dispatch import gradients_by
from .._layout import Tiles, dense, memory_format, tiles
from .._tiles import tile
from .reference import scaled_square as reference


@triton.jit
def _inverse(units, c, channels, UNITS: tl.constexpr, BLOCK_C: tl.constexpr):
    """1 / units of the channels of a tile."""
    if UNITS:
        return 1.0 / tl.load(units + c, mask=c < channels, other=1.0).to(tl.float32)
    else:
        return tl.full([BLOCK_C], 1.0, tl.float32)


@triton.jit
def _forward(
    x, units, sums, pixels, channels, stride_p, stride_c,
    UNITS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    _p, c, at, there = tile(pixels, channels, stride_p, stride_c, BLOCK_P, BLOCK_C)
    value = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    value *= _inverse(units, c, channels, UNITS, BLOCK_C)[None, :]
    place = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    tl.store(sums + place, tl.sum(tl.sum(value * value, axis=1), axis=0))


@triton.jit
def _backward(
    x, units, gradient, grad_x, pixels, channels, stride_p, stride_c,
    UNITS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    _p, c, at, there = tile(pixels, channels, stride_p, stride_c, BLOCK_P, BLOCK_C)
    value = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    inverse = _inverse(units, c, channels, UNITS, BLOCK_C)[None, :]
    twice = 2.0 * tl.load(gradient + tl.program_id(2)).to(tl.float32)
    tl.store(grad_x + at, value * inverse * inverse * twice, mask=there)


class _ScaledSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, units: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, units)
        grid = tiles(x.shape, memory_format(x))
        sums = torch.empty((len(x), grid.shape[0] * grid.shape[1]), dtype=torch.float32, device=x.device)
        _forward[grid.shape](x, units, sums, *_arguments(grid), **_blocks(grid, units))
        return sums.sum(dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None]:
        x, units = ctx.saved_tensors
        if torch.is_grad_enabled():
            return gradients_by(reference, (x, units), (True, False), gradients[0])[0], None
        grid, grad_x = tiles(x.shape, memory_format(x)), torch.empty_like(x)
        _backward[grid.shape](x, units, gradients[0].contiguous(), grad_x, *_arguments(grid), **_blocks(grid, units))
        return grad_x, None


def _arguments(grid: Tiles) -> tuple[int, ...]:
    return grid.pixels, grid.channels, grid.stride_p, grid.stride_c


def _blocks(grid: Tiles, units: Tensor | None) -> dict[str, Any]:
    return {"UNITS": units is not None, "BLOCK_P": grid.block_p, "BLOCK_C": grid.block_c}


def scaled_square(x: Tensor, units: Tensor | None) -> Tensor:
    """See :func:`saminv.ops.scaled_square.scaled_square`."""
    result: Tensor = _ScaledSquare.apply(dense(x), None if units is None else units.contiguous())
    return result

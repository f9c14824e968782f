"""Instance-aware padding in one pass: the map into the middle, the ring around it, and back."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._layout import channel_stride, dense, memory_format, tiles
from .._tiles import tile


@triton.jit
def _places(p, rows, columns):
    """Where pixels of the padded map lie: in the map, in the ring, and whether in the map.

    ``rows`` and ``columns`` are those of the map.
    """
    row, column = p // (columns + 2), p % (columns + 2)
    inside = (row > 0) & (row <= rows) & (column > 0) & (column <= columns)
    # The ring is the row above, the columns to the left and to the right, and the row below.
    side = tl.where(column == 0, row - 1, rows + row - 1)
    beside = columns + 2 + tl.where(row > rows, 2 * rows + column, side)
    return (row - 1) * columns + column - 1, tl.where(row == 0, column, beside), inside


@triton.jit
def _copy(
    x, ring, padded, pixels, channels, stride_p, stride_c, in_stride_c, rows, columns,
    BACK: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    p, c, at, there = tile(pixels, channels, stride_p, stride_c, BLOCK_P, BLOCK_C)
    image = tl.program_id(2).to(tl.int64) * channels
    within, around, inside = _places(p, rows, columns)
    of_map = x + image * rows * columns + within[:, None] * stride_p + c[None, :] * in_stride_c
    length = 2 * (rows + columns) + 4
    of_ring = ring + (image + c)[None, :] * length + around[:, None]
    here, there_too = there & inside[:, None], there & (inside == 0)[:, None]
    if BACK:
        value = tl.load(padded + at, mask=there, other=0.0)
        tl.store(of_map, value, mask=here)
        tl.store(of_ring, value, mask=there_too)
    else:
        tl.store(padded + at, tl.load(of_map, mask=here, other=0.0), mask=here)
        tl.store(padded + at, tl.load(of_ring, mask=there_too, other=0.0), mask=there_too)


def _run(x: Tensor, ring: Tensor, padded: Tensor, order: torch.memory_format, back: bool) -> None:
    grid = tiles(padded.shape, order)
    numbers = (grid.pixels, grid.channels, grid.stride_p, grid.stride_c, channel_stride(x, order), *x.shape[2:])
    _copy[grid.shape](x, ring, padded, *numbers, BACK=back, BLOCK_P=grid.block_p, BLOCK_C=grid.block_c)


class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ring: Tensor) -> Tensor:
        order = memory_format(x)
        batch, channels, rows, columns = x.shape
        shape = (batch, channels, rows + 2, columns + 2)
        padded = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=order)
        _run(x, ring, padded, order, back=False)
        return padded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, ring = _Split.apply(dense(gradients[0]))
        return x, ring


class _Split(torch.autograd.Function):
    """The inverse of the padding, which is its adjoint."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor) -> tuple[Tensor, Tensor]:
        order = memory_format(padded)
        batch, channels, rows, columns = (*padded.shape[:2], padded.shape[2] - 2, padded.shape[3] - 2)
        shape = (batch, channels, rows, columns)
        x = torch.empty(shape, dtype=padded.dtype, device=padded.device, memory_format=order)
        ring = padded.new_empty((batch, channels, 2 * (rows + columns) + 4))
        _run(x, ring, padded, order, back=True)
        return x, ring

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return pad_ring(*gradients)


def pad_ring(x: Tensor, ring: Tensor) -> Tensor:
    """See :func:`saminv.ops.instance_padding.pad_ring`."""
    result: Tensor = _Pad.apply(dense(x), ring.to(x.dtype).contiguous())
    return result

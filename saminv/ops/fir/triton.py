"""Depthwise filters in one pass, in either memory format."""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._layout import FILTER_TILE, channel_stride, dense, memory_format, tiles
from .._tiles import filtered, tile
from .reference import Kernel


@triton.jit
def _filter(
    x, taps, y, pixels, channels, stride_p, stride_c, in_stride_c, rows, columns, width, before,
    TAPS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    p, c, at, there = tile(pixels, channels, stride_p, stride_c, BLOCK_P, BLOCK_C)
    value = filtered(
        x, taps, p, c, pixels, channels, stride_p, in_stride_c, rows, columns, width, before, TAPS, BLOCK_P, BLOCK_C
    )
    tl.store(y + at, value, mask=there)


class _Blur(torch.autograd.Function):
    """The adjoint of a blur is a blur with the kernel reversed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Kernel, gain: float, padding: tuple[int, int]) -> Tensor:
        ctx.arguments = (kernel, gain, padding)
        x = dense(x)
        batch, channels, rows, columns = x.shape
        more, order = sum(padding) - len(kernel) + 1, memory_format(x)
        shape = (batch, channels, rows + more, columns + more)
        y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=order)
        grid = tiles(shape, order, FILTER_TILE)
        taps = tap_tensor(kernel, gain, x.device)
        numbers = (grid.pixels, grid.channels, grid.stride_p, grid.stride_c, channel_stride(x, order))
        _filter[grid.shape](
            x, taps, y, *numbers, rows, columns, y.shape[3], padding[0],
            TAPS=len(kernel), BLOCK_P=grid.block_p, BLOCK_C=grid.block_c,
        )  # fmt: skip
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        kernel, gain, (before, after) = ctx.arguments
        reach = len(kernel) - 1
        gradient = _Blur.apply(gradients[0], kernel[::-1], gain, (reach - before, reach - after))
        return gradient, None, None, None


@functools.lru_cache(maxsize=64)
def tap_tensor(kernel: Kernel, gain: float, device: torch.device) -> Tensor:
    """The taps of both axes `[2, TAPS]` as kernels read them: reversed, because they correlate, one with the gain."""
    # A tensor made under inference_mode could not serve a later differentiable call.
    with torch.inference_mode(False), torch.no_grad():
        taps = torch.tensor(kernel[::-1], dtype=torch.float64)
        return torch.stack([gain * taps, taps]).to(device, torch.float32)


def blur(x: Tensor, kernel: Kernel, gain: float, padding: tuple[int, int]) -> Tensor:
    """See :func:`saminv.ops.fir.blur`."""
    result: Tensor = _Blur.apply(x, kernel, gain, padding)
    return result

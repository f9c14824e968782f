"""toRGB in one pass over the features, forward and backward, with the skip image added.

The products with the few output channels are sums, not matrix products: reading the features takes longer. The backward
reads them once for both derivatives. It writes that of the features, and partial sums of that of the kernels for every
block of pixels, which are added up afterwards in a fixed order.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._dispatch import gradients_by
from .._layout import channel_stride, dense, memory_format, power_of_two
from .reference import kernels_of, project

BLOCK_P, BLOCK_C = 64, 64


@triton.jit
def _pixels(pixels, BLOCK_P: tl.constexpr):
    return tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)


@triton.jit
def _features(x, p, c, pixels, channels, stride_p, stride_c):
    """A tile of the features of this program's image, and where it lies."""
    at = tl.program_id(1).to(tl.int64) * pixels * channels + p[:, None] * stride_p + c[None, :] * stride_c
    there = (p < pixels)[:, None] & (c < channels)[None, :]
    return tl.load(x + at, mask=there, other=0.0).to(tl.float32), at, there


@triton.jit
def _kernel_of(kernels, output, c, channels, OUTPUTS: tl.constexpr):
    """The kernel of one output channel for this program's image, `[channels of the tile]`."""
    at = (tl.program_id(1) * OUTPUTS + output) * channels + c
    return tl.load(kernels + at, mask=c < channels, other=0.0).to(tl.float32)


@triton.jit
def _forward(
    x, kernels, bias, skip, rgb, y, pixels, channels, stride_p, stride_c, out_stride_p, out_stride_c, clamp,
    SKIP: tl.constexpr, KEEP: tl.constexpr, OUTPUTS: tl.constexpr, COLUMNS: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    p, o = _pixels(pixels, BLOCK_P), tl.arange(0, COLUMNS)
    total = tl.zeros([BLOCK_P, COLUMNS], tl.float32)
    for first in range(0, channels, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        value, _at, _there = _features(x, p, c, pixels, channels, stride_p, stride_c)
        for output in tl.static_range(OUTPUTS):
            k = _kernel_of(kernels, output, c, channels, OUTPUTS)
            total += tl.where((o == output)[None, :], tl.sum(value * k[None, :], axis=1)[:, None], 0.0)
    total += tl.load(bias + o, mask=o < OUTPUTS, other=0.0).to(tl.float32)[None, :]
    at = tl.program_id(1).to(tl.int64) * pixels * OUTPUTS + p[:, None] * out_stride_p + o[None, :] * out_stride_c
    there = (p < pixels)[:, None] & (o < OUTPUTS)[None, :]
    if KEEP:
        tl.store(rgb + at, total, mask=there)
    # Comparisons keep what is not a number, as torch.clamp does.
    total = tl.where(total > clamp, clamp, tl.where(total < -clamp, -clamp, total))
    if SKIP:
        total += tl.load(skip + at, mask=there, other=0.0).to(tl.float32)
    tl.store(y + at, total, mask=there)


@triton.jit
def _backward(
    x, kernels, gradient, grad_x, grad_kernels, pixels, channels, stride_p, stride_c, out_stride_p, out_stride_c,
    GRAD_X: tl.constexpr, GRAD_KERNELS: tl.constexpr, OUTPUTS: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    p, c = _pixels(pixels, BLOCK_P), tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    value, at, there = _features(x, p, c, pixels, channels, stride_p, stride_c)
    block = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    gradient += tl.program_id(1).to(tl.int64) * pixels * OUTPUTS
    found = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for output in tl.static_range(OUTPUTS):
        g = tl.load(gradient + p * out_stride_p + output * out_stride_c, mask=p < pixels, other=0.0).to(tl.float32)
        if GRAD_X:
            found += g[:, None] * _kernel_of(kernels, output, c, channels, OUTPUTS)[None, :]
        if GRAD_KERNELS:
            into = grad_kernels + (block * OUTPUTS + output) * channels + c
            tl.store(into, tl.sum(g[:, None] * value, axis=0), mask=c < channels)
    if GRAD_X:
        tl.store(grad_x + at, found, mask=there)


class _ToRGB(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        x, kernels, bias, skip, clamp = arguments
        order = memory_format(x)
        ctx.skip_kind = None if skip is None else skip.dtype
        kind = x.dtype if skip is None else torch.promote_types(x.dtype, skip.dtype)
        y = torch.empty((len(x), kernels.shape[1], *x.shape[2:]), dtype=kind, device=x.device, memory_format=order)
        rgb = torch.empty_like(y, dtype=torch.float32) if clamp is not None else None
        numbers, blocks = _sizes(x, y, order)
        grid = (-(-numbers[0] // blocks["BLOCK_P"]), len(x))
        limit = float("inf") if clamp is None else clamp
        flags = {"SKIP": skip is not None, "KEEP": rgb is not None, "COLUMNS": power_of_two(y.shape[1])}
        _forward[grid](x, kernels, bias, skip, rgb, y, *numbers, limit, **flags, **blocks)
        ctx.save_for_backward(x, kernels, bias, rgb)
        ctx.clamp = clamp
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, kernels, bias, rgb = ctx.saved_tensors
        needed, through = ctx.needs_input_grad[:4], gradients[0]
        if torch.is_grad_enabled():
            # The result is linear in the skip image, so any will do.
            skip = torch.zeros_like(through, dtype=ctx.skip_kind, requires_grad=True) if needed[3] else None
            function = functools.partial(project, clamp=ctx.clamp)
            return (*gradients_by(function, (x, kernels, bias, skip), needed, through), None)
        inner = through if rgb is None else torch.where(rgb.abs() <= ctx.clamp, through, 0)
        inner = inner.contiguous(memory_format=memory_format(x))
        numbers, blocks = _sizes(x, inner, memory_format(x))
        grid = (-(-numbers[0] // blocks["BLOCK_P"]), len(x), -(-x.shape[1] // blocks["BLOCK_C"]))
        grad_x = torch.empty_like(x) if needed[0] else None
        shape = (len(x), grid[0], *kernels.shape[1:])
        parts = x.new_empty(shape, dtype=torch.float32) if needed[1] else None
        flags = {"GRAD_X": needed[0], "GRAD_KERNELS": needed[1]}
        if needed[0] or needed[1]:
            _backward[grid](x, kernels, inner, grad_x, parts, *numbers, **flags, **blocks)
        grad_kernels = None if parts is None else parts.sum(1).to(kernels.dtype)
        grad_bias = inner.sum((0, 2, 3), dtype=torch.float32).to(bias.dtype) if needed[2] else None
        return grad_x, grad_kernels, grad_bias, through.to(ctx.skip_kind) if needed[3] else None, None


def _sizes(x: Tensor, y: Tensor, order: torch.memory_format) -> tuple[tuple[int, ...], dict[str, int]]:
    """Numbers and blocks that both kernels are told."""
    channels, outputs, pixels = x.shape[1], y.shape[1], x.shape[2] * x.shape[3]
    last = order is torch.channels_last
    strides = (channels if last else 1, channel_stride(x, order), outputs if last else 1, channel_stride(y, order))
    block_p, block_c = (min(limit, power_of_two(n)) for limit, n in ((BLOCK_P, pixels), (BLOCK_C, channels)))
    return (pixels, channels, *strides), {"OUTPUTS": outputs, "BLOCK_P": block_p, "BLOCK_C": block_c}


def to_rgb(
    x: Tensor, weight: Tensor, styles: Tensor, bias: Tensor, skip: Tensor | None = None, *, clamp: float | None = None
) -> Tensor:
    """See :func:`saminv.ops.to_rgb.to_rgb`."""
    # Outside of the function, so that second derivatives see it.
    x, kernels, bias = dense(x), kernels_of(weight, styles).contiguous(), bias.contiguous()
    skip = None if skip is None else dense(skip, like=x)
    result: Tensor = _ToRGB.apply(x, kernels, bias, skip, clamp)
    return result

"""The layer epilogue in one pass over memory, forward and backward.

The forward reads the convolution's output once. The backward reads it again, together with the gradient, because the
sign of what the leaky ReLU saw and the sums for the demodulation follow from it. It writes the gradient with respect to
the input, and partial sums for every block of pixels, which are added up afterwards in a fixed order.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._dispatch import gradients_by
from .._layout import Tiles, dense, tiles
from .reference import layer_epilogue as reference

NO_CLAMP = float("inf")


@triton.jit
def _tile(pixels, channels, stride_p, stride_c, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Pixels and channels of this program's tile of one image, their offsets, and which of them exist."""
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    start = tl.program_id(2).to(tl.int64) * pixels * channels
    there = (p < pixels)[:, None] & (c < channels)[None, :]
    return p, c, start + p[:, None] * stride_p + c[None, :] * stride_c, there


@triton.jit
def _before_activation(x, scale, bias, noise, p, c, pixels, channels, noise_stride, gain, NOISE: tl.constexpr):
    """gain * (scale * x + noise + bias) of a tile."""
    image = tl.program_id(2)
    s = tl.load(scale + image * channels + c, mask=c < channels, other=0.0).to(tl.float32)
    b = tl.load(bias + c, mask=c < channels, other=0.0).to(tl.float32)
    y = x * (s * gain)[None, :] + (b * gain)[None, :]
    if NOISE:
        n = tl.load(noise + image * noise_stride + p, mask=p < pixels, other=0.0).to(tl.float32)
        y += (n * gain)[:, None]
    return y


@triton.jit
def _forward(
    x, scale, bias, noise, delta, mask, y,
    pixels, channels, stride_p, stride_c, noise_stride, slope, gain, clamp,
    NOISE: tl.constexpr, DELTA: tl.constexpr, MASK: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    p, c, at, there = _tile(pixels, channels, stride_p, stride_c, BLOCK_P, BLOCK_C)
    value = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    value = _before_activation(value, scale, bias, noise, p, c, pixels, channels, noise_stride, gain, NOISE)
    value = tl.where(value > 0, value, value * slope)
    # Comparisons keep what is not a number, as torch.clamp does.
    value = tl.where(value > clamp, clamp, tl.where(value < -clamp, -clamp, value))
    if DELTA:
        d = tl.load(delta + at, mask=there, other=0.0).to(tl.float32)
        if MASK:
            d *= tl.load(mask + tl.program_id(2) * pixels + p, mask=p < pixels, other=0.0).to(tl.float32)[:, None]
        value += d
    tl.store(y + at, value, mask=there)


@triton.jit
def _backward(
    x, scale, bias, noise, mask, gradient, grad_x, grad_scale, grad_bias, grad_noise, grad_delta,
    pixels, channels, stride_p, stride_c, noise_stride, slope, gain, clamp,
    NOISE: tl.constexpr, MASK: tl.constexpr, GRAD_X: tl.constexpr, GRAD_SCALE: tl.constexpr, GRAD_BIAS: tl.constexpr,
    GRAD_NOISE: tl.constexpr, GRAD_DELTA: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    p, c, at, there = _tile(pixels, channels, stride_p, stride_c, BLOCK_P, BLOCK_C)
    value = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    g = tl.load(gradient + at, mask=there, other=0.0).to(tl.float32)
    if GRAD_DELTA:
        d = g
        if MASK:
            d *= tl.load(mask + tl.program_id(2) * pixels + p, mask=p < pixels, other=0.0).to(tl.float32)[:, None]
        tl.store(grad_delta + at, d, mask=there)
    g *= gain
    before = _before_activation(value, scale, bias, noise, p, c, pixels, channels, noise_stride, gain, NOISE)
    after = tl.where(before > 0, before, before * slope)
    g = tl.where(before > 0, g, g * slope)
    g = tl.where((after <= clamp) & (after >= -clamp), g, 0.0)
    image, block, blocks = tl.program_id(2), tl.program_id(0), tl.num_programs(0)
    if GRAD_X:
        s = tl.load(scale + image * channels + c, mask=c < channels, other=0.0).to(tl.float32)
        tl.store(grad_x + at, g * s[None, :], mask=there)
    partial = (image * blocks + block) * channels + c
    if GRAD_SCALE:
        tl.store(grad_scale + partial, tl.sum(g * value, axis=0), mask=c < channels)
    if GRAD_BIAS:
        tl.store(grad_bias + partial, tl.sum(g, axis=0), mask=c < channels)
    if GRAD_NOISE:
        row = (image * tl.num_programs(1) + tl.program_id(1)) * pixels
        tl.store(grad_noise + row + p, tl.sum(g, axis=1), mask=p < pixels)


class _LayerEpilogue(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        x, scale, bias, noise, delta, mask, slope, gain, clamp = arguments
        x, scale, bias = dense(x), scale.contiguous(), bias.contiguous()
        noise, mask = (None if tensor is None else tensor.contiguous() for tensor in (noise, mask))
        delta = None if delta is None else dense(delta, like=x)
        ctx.save_for_backward(x, scale, bias, noise, mask)
        ctx.settings = slope, gain, clamp
        y = torch.empty_like(x)
        grid = tiles(x)
        numbers = (*_sizes(grid, noise), *_limits(*ctx.settings))
        blocks = _blocks(grid, NOISE=noise, DELTA=delta, MASK=mask)
        _forward[grid.shape](x, scale, bias, noise, delta, mask, y, *numbers, **blocks)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, scale, bias, noise, mask = ctx.saved_tensors
        slope, gain, clamp = ctx.settings
        needed = ctx.needs_input_grad[:5]
        if torch.is_grad_enabled():
            # The result is linear in delta, so any delta will do.
            inputs = (x, scale, bias, noise, torch.zeros_like(x, requires_grad=True) if needed[4] else None, mask)

            def function(*tensors: Any) -> Tensor:
                return reference(*tensors, slope=slope, gain=gain, clamp=clamp)

            return (*gradients_by(function, inputs, (*needed, False), gradients[0]), None, None, None)
        grid = tiles(x)
        gradient = dense(gradients[0], like=x)
        shapes = _partial_shapes(grid)
        parts = [x.new_empty(shape, dtype=torch.float32) if need else None for shape, need in zip(shapes, needed[1:])]
        grad_x, grad_delta = (torch.empty_like(x) if need else None for need in (needed[0], needed[4]))
        flags = dict(zip(("GRAD_X", "GRAD_SCALE", "GRAD_BIAS", "GRAD_NOISE", "GRAD_DELTA"), needed))
        tensors = (x, scale, bias, noise, mask, gradient, grad_x, *parts, grad_delta)
        numbers = (*_sizes(grid, noise), *_limits(*ctx.settings))
        _backward[grid.shape](*tensors, *numbers, **_blocks(grid, NOISE=noise, MASK=mask), **flags)
        return (grad_x, *_sums(parts, scale, bias, noise), grad_delta, None, None, None, None)


def _partial_shapes(grid: Tiles) -> tuple[tuple[int, ...], ...]:
    """Of the partial sums for scale, bias and noise."""
    pixel_blocks, channel_blocks, batch = grid.shape
    by_channel = (batch, pixel_blocks, grid.channels)
    return by_channel, by_channel, (batch, channel_blocks, grid.pixels)


def _sums(parts: list[Tensor | None], scale: Tensor, bias: Tensor, noise: Tensor | None) -> list[Tensor | None]:
    """Gradients of scale, bias and noise from their partial sums."""
    by_scale, by_bias, by_noise = parts
    found: list[Tensor | None] = [None if by_scale is None else by_scale.sum(1).to(scale.dtype)]
    found.append(None if by_bias is None else by_bias.sum((0, 1)).to(bias.dtype))
    if by_noise is None or noise is None:
        return [*found, None]
    summed = by_noise.sum(1) if noise.shape[0] > 1 else by_noise.sum((0, 1))
    return [*found, summed.reshape(noise.shape).to(noise.dtype)]


def _sizes(grid: Tiles, noise: Tensor | None) -> tuple[int, ...]:
    per_image = noise is not None and noise.shape[0] > 1
    return grid.pixels, grid.channels, grid.stride_p, grid.stride_c, grid.pixels if per_image else 0


def _limits(slope: float, gain: float, clamp: float | None) -> tuple[float, float, float]:
    return slope, gain, NO_CLAMP if clamp is None else clamp


def _blocks(grid: Tiles, **given: Tensor | None) -> dict[str, Any]:
    there = {name: tensor is not None for name, tensor in given.items()}
    return {**there, "BLOCK_P": grid.block_p, "BLOCK_C": grid.block_c}


def layer_epilogue(
    x: Tensor,
    demodulation: Tensor,
    bias: Tensor,
    noise: Tensor | None = None,
    delta: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    slope: float = 0.2,
    gain: float = 1.0,
    clamp: float | None = None,
) -> Tensor:
    """See :func:`saminv.ops.layer_epilogue.layer_epilogue`."""
    result: Tensor = _LayerEpilogue.apply(x, demodulation, bias, noise, delta, mask, slope, gain, clamp)
    return result

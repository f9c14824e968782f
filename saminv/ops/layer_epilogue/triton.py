"""The layer epilogue in one pass over memory, forward and backward.

The forward reads the convolution's output once. The backward reads it again, together with the gradient, because the
sign of what the leaky ReLU saw and the sums for the demodulation follow from it. It writes the gradient with respect to
the input, and partial sums for every block of pixels, which are added up afterwards in a fixed order.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._dispatch import gradients_by
from .._layout import FILTER_TILE, TILE, Tiles, channel_stride, dense, memory_format, tiles
from .._tiles import filtered, tile
from ..fir.triton import blur as blur_kernel
from ..fir.triton import tap_tensor
from .reference import GAIN, TAPS
from .reference import layer_epilogue as reference

NO_CLAMP = float("inf")


@triton.jit
def _read(
    x, taps, p, c, at, there, pixels, channels, stride_p, in_stride_c, rows, columns, width, before,
    TAPS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A tile of the input, through the filter if there is one."""
    if TAPS == 0:
        return tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    else:
        return filtered(
            x, taps, p, c, pixels, channels, stride_p, in_stride_c, rows, columns, width, before,
            TAPS, BLOCK_P, BLOCK_C,
        )  # fmt: skip


@triton.jit
def _before_activation(
    x, scale, bias, noise, p, c, pixels, channels, noise_stride, gain, BIAS: tl.constexpr, NOISE: tl.constexpr
):  # fmt: skip
    """gain * (scale * x + noise + bias) of a tile."""
    image = tl.program_id(2)
    s = tl.load(scale + image * channels + c, mask=c < channels, other=0.0).to(tl.float32)
    y = x * (s * gain)[None, :]
    if BIAS:
        b = tl.load(bias + c, mask=c < channels, other=0.0).to(tl.float32)
        y += (b * gain)[None, :]
    if NOISE:
        n = tl.load(noise + image * noise_stride + p, mask=p < pixels, other=0.0).to(tl.float32)
        y += (n * gain)[:, None]
    return y


@triton.jit
def _forward(
    x, scale, bias, noise, delta, mask, taps, y,
    pixels, channels, stride_p, stride_c, in_stride_c, rows, columns, width, before, noise_stride, slope, gain, clamp,
    BIAS: tl.constexpr, NOISE: tl.constexpr, DELTA: tl.constexpr, MASK: tl.constexpr, TAPS: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    p, c, at, there = tile(pixels, channels, stride_p, stride_c, BLOCK_P, BLOCK_C)
    value = _read(
        x, taps, p, c, at, there, pixels, channels, stride_p, in_stride_c, rows, columns, width, before,
        TAPS, BLOCK_P, BLOCK_C,
    )  # fmt: skip
    value = _before_activation(value, scale, bias, noise, p, c, pixels, channels, noise_stride, gain, BIAS, NOISE)
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
    x, scale, bias, noise, mask, taps, gradient, grad_x, grad_scale, grad_bias, grad_noise, grad_delta,
    pixels, channels, stride_p, stride_c, in_stride_c, rows, columns, width, before, noise_stride, slope, gain, clamp,
    BIAS: tl.constexpr, NOISE: tl.constexpr, MASK: tl.constexpr, TAPS: tl.constexpr,
    GRAD_X: tl.constexpr, GRAD_SCALE: tl.constexpr, GRAD_BIAS: tl.constexpr,
    GRAD_NOISE: tl.constexpr, GRAD_DELTA: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    p, c, at, there = tile(pixels, channels, stride_p, stride_c, BLOCK_P, BLOCK_C)
    value = _read(
        x, taps, p, c, at, there, pixels, channels, stride_p, in_stride_c, rows, columns, width, before,
        TAPS, BLOCK_P, BLOCK_C,
    )  # fmt: skip
    g = tl.load(gradient + at, mask=there, other=0.0).to(tl.float32)
    if GRAD_DELTA:
        d = g
        if MASK:
            d *= tl.load(mask + tl.program_id(2) * pixels + p, mask=p < pixels, other=0.0).to(tl.float32)[:, None]
        tl.store(grad_delta + at, d, mask=there)
    g *= gain
    arriving = _before_activation(value, scale, bias, noise, p, c, pixels, channels, noise_stride, gain, BIAS, NOISE)
    after = tl.where(arriving > 0, arriving, arriving * slope)
    g = tl.where(arriving > 0, g, g * slope)
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
        x, scale, bias, noise, delta, mask, settings = arguments
        ctx.save_for_backward(x, scale, bias, noise, mask)
        ctx.settings, ctx.delta_kind = settings, None if delta is None else delta.dtype
        call = _Call(x, noise, settings)
        y = torch.empty(call.shape, dtype=x.dtype, device=x.device, memory_format=call.order)
        flags = _given(BIAS=bias, NOISE=noise, DELTA=delta, MASK=mask)
        _forward[call.grid.shape](
            x, scale, bias, noise, delta, mask, call.taps, y, *call.numbers, **flags, **call.blocks
        )
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, scale, bias, noise, mask = ctx.saved_tensors
        settings, needed = ctx.settings, ctx.needs_input_grad[:5]
        call = _Call(x, noise, settings)
        if torch.is_grad_enabled():
            # The result is linear in delta, so any delta will do.
            delta = torch.zeros_like(gradients[0], dtype=ctx.delta_kind, requires_grad=True) if needed[4] else None
            inputs = (x, scale, bias, noise, delta, mask)
            function = functools.partial(reference, **settings)
            return (*gradients_by(function, inputs, (*needed, False), gradients[0]), None)
        gradient = gradients[0].contiguous(memory_format=call.order)
        grad_delta = torch.empty_like(gradient, dtype=ctx.delta_kind) if needed[4] else None
        grad_x, *others = _gradients(call, (x, scale, bias, noise, mask), gradient, grad_delta, needed)
        if grad_x is not None and settings["blur"] is not None:
            back = len(TAPS) - 1 - settings["blur"]
            grad_x = blur_kernel(grad_x, TAPS, GAIN, (back, back))
        return (grad_x, *others, grad_delta, None, None)


def _gradients(
    call: _Call,
    inputs: Sequence[Tensor | None],
    gradient: Tensor,
    grad_delta: Tensor | None,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """By the input after its filter, scale, bias and noise where they are needed; fills in that by the change."""
    x, scale, bias, noise, mask = inputs
    assert x is not None and scale is not None
    shapes = _partial_shapes(call.grid)
    parts = [x.new_empty(shape, dtype=torch.float32) if need else None for shape, need in zip(shapes, needed[1:])]
    grad_x = torch.empty_like(gradient) if needed[0] else None
    flags = dict(zip(("GRAD_X", "GRAD_SCALE", "GRAD_BIAS", "GRAD_NOISE", "GRAD_DELTA"), needed))
    flags |= _given(BIAS=bias, NOISE=noise, MASK=mask)
    tensors = (x, scale, bias, noise, mask, call.taps, gradient, grad_x, *parts, grad_delta)
    _backward[call.grid.shape](*tensors, *call.numbers, **flags, **call.blocks)
    return [grad_x, *_sums(parts, scale, bias, noise)]


def scale_gradients(
    gradient: Tensor, x: Tensor, scale: Tensor, by_x: bool, by_scale: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of channels `[B, C, h, w]` that were multiplied by a factor `[B, C]`, where they are needed."""
    x = dense(x)
    call = _Call(x, None, {"slope": 1.0, "gain": 1.0, "clamp": None, "blur": None})
    needed = (by_x, by_scale, False, False, False)
    found = _gradients(call, (x, scale.contiguous(), None, None, None), dense(gradient, like=x), None, needed)
    return found[0], found[1]


def _given(**tensors: Tensor | None) -> dict[str, bool]:
    """Which tensors there are."""
    return {name: tensor is not None for name, tensor in tensors.items()}


class _Call:
    """What both kernels are told about an input and the settings.

    Attributes:
        shape, order: Of the result.
        grid: Its tiles.
        taps: Of the filter; None without.
        numbers, blocks: Arguments of the kernels.
    """

    def __init__(self, x: Tensor, noise: Tensor | None, settings: Mapping[str, Any]) -> None:
        padding, clamp = settings["blur"], settings["clamp"]
        more = 0 if padding is None else 2 * padding - len(TAPS) + 1
        rows, columns = x.shape[2:]
        self.shape, self.order = (*x.shape[:2], rows + more, columns + more), memory_format(x)
        self.grid = grid = tiles(self.shape, self.order, TILE if padding is None else FILTER_TILE)
        self.taps = None if padding is None else tap_tensor(TAPS, GAIN, x.device)
        per_image = noise is not None and noise.shape[0] > 1
        self.numbers = (
            *(grid.pixels, grid.channels, grid.stride_p, grid.stride_c),
            *(channel_stride(x, self.order), rows, columns, self.shape[3], padding or 0),
            *(grid.pixels if per_image else 0, settings["slope"], settings["gain"]),
            NO_CLAMP if clamp is None else clamp,
        )
        taps = 0 if padding is None else len(TAPS)
        self.blocks = {"TAPS": taps, "BLOCK_P": grid.block_p, "BLOCK_C": grid.block_c}


def _partial_shapes(grid: Tiles) -> tuple[tuple[int, ...], ...]:
    """Of the partial sums for scale, bias and noise."""
    pixel_blocks, channel_blocks, batch = grid.shape
    by_channel = (batch, pixel_blocks, grid.channels)
    return by_channel, by_channel, (batch, channel_blocks, grid.pixels)


def _sums(parts: list[Tensor | None], scale: Tensor, bias: Tensor | None, noise: Tensor | None) -> list[Tensor | None]:
    """Gradients of scale, bias and noise from their partial sums."""
    by_scale, by_bias, by_noise = parts
    found: list[Tensor | None] = [None if by_scale is None else by_scale.sum(1).to(scale.dtype)]
    found.append(None if by_bias is None or bias is None else by_bias.sum((0, 1)).to(bias.dtype))
    if by_noise is None or noise is None:
        return [*found, None]
    summed = by_noise.sum(1) if noise.shape[0] > 1 else by_noise.sum((0, 1))
    return [*found, summed.reshape(noise.shape).to(noise.dtype)]


def layer_epilogue(
    x: Tensor,
    demodulation: Tensor,
    bias: Tensor | None = None,
    noise: Tensor | None = None,
    delta: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    slope: float = 0.2,
    gain: float = 1.0,
    clamp: float | None = None,
    blur: int | None = None,
) -> Tensor:
    """See :func:`saminv.ops.layer_epilogue.layer_epilogue`."""
    settings = {"slope": slope, "gain": gain, "clamp": clamp, "blur": blur}
    # Outside of the function, so that second derivatives see it.
    x, demodulation = dense(x), demodulation.contiguous()
    bias, noise, mask = (None if tensor is None else tensor.contiguous() for tensor in (bias, noise, mask))
    delta = None if delta is None else dense(delta, like=x)
    result: Tensor = _LayerEpilogue.apply(x, demodulation, bias, noise, delta, mask, settings)
    return result

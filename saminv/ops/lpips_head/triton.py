"""The head of LPIPS in one pass over image and target features, forward and backward.

A program holds all channels of some pixels, so that lengths and sums need no second pass; features are read in
channels_last memory.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._dispatch import gradients_by
from .._layout import power_of_two
from .reference import EPS, SHORTEST
from .reference import lpips_head as reference

TILE = 2048
"""Numbers in a tile."""


@triton.jit
def _rows(x, target, weights, pixels, channels, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Features of image and target and weights of this program's pixels, where they lie and which exist."""
    p = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.arange(0, BLOCK_C)
    at, there = p[:, None] * channels + c[None, :], (p < pixels)[:, None] & (c < channels)[None, :]
    value = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    wanted = tl.load(target + at, mask=there, other=0.0).to(tl.float32)
    weight = tl.load(weights + c, mask=c < channels, other=0.0).to(tl.float32)[None, :]
    return value, wanted, weight, p, at, there


@triton.jit
def _forward(
    x, target, weights, y, pixels, channels, eps, shortest, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    value, wanted, weight, p, _at, _there = _rows(x, target, weights, pixels, channels, BLOCK_P, BLOCK_C)
    length = tl.maximum(tl.sqrt(tl.sum(value * value, axis=1)), shortest)
    difference = value / (length + eps)[:, None] - wanted
    tl.store(y + p, tl.sum(weight * difference * difference, axis=1), mask=p < pixels)


@triton.jit
def _backward(
    x, target, weights, gradient, grad_x, pixels, channels, eps, shortest,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    value, wanted, weight, p, at, there = _rows(x, target, weights, pixels, channels, BLOCK_P, BLOCK_C)
    length = tl.maximum(tl.sqrt(tl.sum(value * value, axis=1)), shortest)
    inverse = 1.0 / (length + eps)
    g = tl.load(gradient + p, mask=p < pixels, other=0.0).to(tl.float32)
    through = 2.0 * weight * (value * inverse[:, None] - wanted) * g[:, None]
    # The length depends on every channel, unless it is at its floor.
    along = tl.where(length > shortest, tl.sum(through * value, axis=1) * inverse * inverse / length, 0.0)
    tl.store(grad_x + at, through * inverse[:, None] - value * along[:, None], mask=there)


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, target: Tensor, weights: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(features, target, weights)
        ctx.eps = eps
        batch, _, height, width = features.shape
        y = torch.empty((batch, 1, height, width), dtype=torch.float32, device=features.device)
        grid, numbers, blocks = _sizes(features, eps)
        _forward[grid](features, target, weights, y, *numbers, **blocks)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            function = functools.partial(reference, eps=ctx.eps)
            return (*gradients_by(function, inputs, (True, False, False), gradients[0]), None)
        grad_x = torch.empty_like(inputs[0])
        grid, numbers, blocks = _sizes(grad_x, ctx.eps)
        _backward[grid](*inputs, gradients[0].contiguous(), grad_x, *numbers, **blocks)
        return grad_x, None, None, None


def _sizes(features: Tensor, eps: float) -> tuple[tuple[int], tuple[float, ...], dict[str, int]]:
    """Grid, numbers and blocks of both kernels."""
    batch, channels, height, width = features.shape
    pixels, block_c = batch * height * width, power_of_two(channels)
    block_p = max(1, min(TILE // block_c, power_of_two(pixels)))
    return (-(-pixels // block_p),), (pixels, channels, eps, SHORTEST), {"BLOCK_P": block_p, "BLOCK_C": block_c}


def lpips_head(features: Tensor, target: Tensor, weights: Tensor, eps: float = EPS) -> Tensor:
    """See :func:`saminv.ops.lpips_head.lpips_head`."""
    # Outside of the function, so that second derivatives see it.
    features, target = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (features, target))
    result: Tensor = _Head.apply(features, target, weights.contiguous(), eps)
    return result

"""A step of Adam in one pass over variables, gradient and moments; tiles outside of the mask are not read."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._layout import memory_format, tiles
from .._tiles import tile
from .reference import adam_step as reference


@triton.jit
def _step(
    x, gradient, first, second, rate, second_bias, scale, mask,
    pixels, channels, stride_p, stride_c, beta1, beta2, eps, factor,
    UPDATE: tl.constexpr, SCALE: tl.constexpr, MASK: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    p, c, at, there = tile(pixels, channels, stride_p, stride_c, BLOCK_P, BLOCK_C)
    image = tl.program_id(2)
    if MASK:
        inside = tl.load(mask + image * pixels + p, mask=p < pixels, other=0.0) != 0
        there = there & inside[:, None]
        if tl.max(inside.to(tl.int32), axis=0) == 0:
            return
    speed = tl.load(rate + image).to(tl.float32) * factor
    g = tl.load(gradient + at, mask=there, other=0.0).to(tl.float32)
    m = tl.load(first + at, mask=there, other=0.0).to(tl.float32)
    v = tl.load(second + at, mask=there, other=0.0).to(tl.float32)
    m += (g - m) * (1 - beta1)
    v = v * beta2 + g * g * (1 - beta2)
    tl.store(first + at, m, mask=there)
    tl.store(second + at, v, mask=there)
    move = m / (tl.sqrt(v) / tl.sqrt(tl.load(second_bias + image).to(tl.float32)) + eps) * speed
    if SCALE:
        move *= tl.load(scale + c, mask=c < channels, other=0.0).to(tl.float32)[None, :]
    if UPDATE:
        move = tl.load(x + at, mask=there, other=0.0).to(tl.float32) - move
    tl.store(x + at, move, mask=there)


@torch.no_grad()
def adam_step(
    x: Tensor | None,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    rate: Tensor,
    second_bias: Tensor,
    *,
    betas: tuple[float, float],
    eps: float,
    scale: Tensor | float,
    mask: Tensor | None,
) -> Tensor:
    """See :func:`saminv.ops.adam_step.adam_step`."""
    settings: dict[str, Any] = {"betas": betas, "eps": eps, "scale": scale, "mask": mask}
    state = [first, second] if x is None else [x, first, second]
    if not _readable(scale, gradient) or not all(_lies_like(tensor, first) for tensor in state):
        return reference(x, gradient, first, second, rate, second_bias, **settings)
    order = memory_format(first) if gradient.dim() == 4 else torch.contiguous_format
    grid = tiles(_as_map(gradient), order)
    gradient = gradient.contiguous(memory_format=order)
    into = torch.zeros_like(first) if x is None else x
    by_channel = isinstance(scale, Tensor) and scale.dim() > 0
    numbers = (
        grid.pixels,
        grid.channels,
        grid.stride_p,
        grid.stride_c,
        *betas,
        eps,
        1.0 if by_channel else float(scale),
    )
    flags = {"UPDATE": x is not None, "SCALE": by_channel, "MASK": mask is not None}
    tensors = (into, gradient, first, second, rate.float(), second_bias.float(), scale if by_channel else None)
    blocks = {"BLOCK_P": grid.block_p, "BLOCK_C": grid.block_c}
    _step[grid.shape](*tensors, None if mask is None else mask.contiguous(), *numbers, **flags, **blocks)
    return into


def _as_map(variables: Tensor) -> tuple[int, int, int, int]:
    """Shape `[B, C, N, 1]` of variables `[B, C, ...]`, or `[B, 1, N, 1]` of `[B, N]`."""
    batch, *rest = variables.shape
    channels = rest[0] if len(rest) > 1 else 1
    return batch, channels, math.prod(rest) // max(channels, 1), 1


def _readable(scale: Tensor | float, gradient: Tensor) -> bool:
    """Whether the kernel can read the factor: one for all, or one a channel."""
    if not isinstance(scale, Tensor) or scale.dim() == 0:
        return True
    return tuple(scale.shape) == (gradient.shape[1], *[1] * (gradient.dim() - 2))


def _lies_like(tensor: Tensor, first: Tensor) -> bool:
    """Whether a tensor that is written to has no gaps and the memory format of the others."""
    order = memory_format(first) if tensor.dim() == 4 else torch.contiguous_format
    return tensor.is_contiguous(memory_format=order)

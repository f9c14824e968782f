"""The filtered leaky ReLU with a backward of its own, which keeps a byte for each pixel of the fine grid.

The gradient of a filter is a filter, which needs none of the numbers that went through. The leaky ReLU needs its slope
there, which is one of three: above zero, below it, or clamped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..upfirdn2d import Pads, filter_size, upfirdn2d


@dataclass(frozen=True)
class _Settings:
    up: int
    down: int
    pads: Pads
    gain: float
    slope: float
    clamp: float | None
    flip: bool


class _FilteredLReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        x, b, fu, fd, settings = arguments
        x = x if b is None else x + b[:, None, None]
        fine = upfirdn2d(x, fu, up=settings.up, padding=settings.pads, gain=settings.up**2, flip_filter=settings.flip)
        y = F.leaky_relu(fine, settings.slope).mul_(settings.gain)
        # 1 above zero, -1 below it.
        kind = (fine > 0).to(torch.int8).mul_(2).sub_(1)
        if settings.clamp is not None:
            kind.mul_(y.abs() <= settings.clamp)
            y.clamp_(-settings.clamp, settings.clamp)
        ctx.save_for_backward(kind, fu, fd)
        ctx.settings, ctx.sizes = settings, (x.shape[2:], fine.shape[2:])
        return upfirdn2d(y, fd, down=settings.down, flip_filter=settings.flip)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (kind, fu, fd), settings, (coarse, fine) = ctx.saved_tensors, ctx.settings, ctx.sizes
        # A line through the three slopes: that below zero, none, that above.
        slopes = F.leaky_relu(kind.to(gradients[0].dtype), -settings.slope) * settings.gain
        gradient = _back(gradients[0], fd, fine, down=settings.down, flip=settings.flip) * slopes
        gradient = _back(
            gradient, fu, coarse, up=settings.up, pads=settings.pads, gain=settings.up**2, flip=settings.flip
        )
        by_bias = gradient.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[1] else None
        return gradient, by_bias, None, None, None


def _back(
    gradient: Tensor,
    f: Tensor | None,
    size: tuple[int, int],
    *,
    up: int = 1,
    down: int = 1,
    pads: Pads = (0, 0, 0, 0),
    gain: float = 1.0,
    flip: bool,
) -> Tensor:
    """The gradient of what went into an ``upfirdn2d``, of ``size`` (height, width), from that of what came out."""
    width, height = filter_size(f)
    # What went in begins where the filter first reached it, and ends with its last pixel.
    left, top = width - 1 - pads[0], height - 1 - pads[2]
    right = (size[1] - 1) * up + 1 + pads[0] - gradient.shape[3] * down
    bottom = (size[0] - 1) * up + 1 + pads[2] - gradient.shape[2] * down
    padding = (left, right, top, bottom)
    return upfirdn2d(gradient, f, up=down, down=up, padding=padding, gain=gain, flip_filter=not flip)


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None,
    *,
    up: int,
    down: int,
    pads: Pads,
    gain: float,
    slope: float,
    clamp: float | None,
    flip: bool,
) -> Tensor:
    """See :func:`saminv.ops.filtered_lrelu.filtered_lrelu`."""
    result: Tensor = _FilteredLReLU.apply(x, b, fu, fd, _Settings(up, down, pads, gain, slope, clamp, flip))
    return result

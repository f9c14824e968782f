"""Modulated convolution with a frozen weight in plain torch, with a backward of its own that keeps its input only.

With ``z = s * x`` and g the gradient of z, which is that of the data of the convolution, the gradient of x is ``s * g``
and that of s is ``sum(x * g)`` over pixels. So z is not kept, and there is no gradient of the weight.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._dispatch import gradients_by
from .._layout import bands, memory_format
from .._precision import widen
from ..instance_padding.reference import pad_ring, ring_of
from ..layer_epilogue.lean import layer_epilogue
from .reference import Parts, scaled
from .reference import convolve as plain
from .reference import modulated_conv2d as reference

Gradients = tuple[Tensor | None, Tensor | None]

WIDE = 1 << 15
"""Products of channels from which on a CPU convolves each phase of an up-sampled feature by itself."""


def scale_gradients(gradient: Tensor, x: Tensor, scale: Tensor, by_x: bool, by_scale: bool) -> Gradients:
    """Gradients of channels that were scaled, in the memory of the gradient of the result, and of the scale."""
    factor, sums = widen(scale)[:, :, None, None], []
    for first, last in bands(x):
        into = gradient[:, :, first:last]
        g = widen(into)
        if by_scale:
            sums.append((g * x[:, :, first:last]).sum(dim=(2, 3)))
        if by_x:
            torch.mul(g, factor, out=into)
    by_sum = torch.stack(sums).sum(dim=0).to(scale.dtype) if by_scale else None
    return gradient if by_x else None, by_sum


@dataclass(frozen=True)
class Scaling:
    """How channels are scaled and surrounded, and the gradients of the scaling."""

    scale: Callable[..., Tensor] = scaled
    pad: Callable[..., Tensor] = pad_ring
    back: Callable[..., Gradients] = scale_gradients


def conv_transpose(x: Tensor, kernel: Tensor) -> Tensor:
    """Transposed convolution `[B, I, h, w]` * `[I, O, 3, 3]` with stride 2 -> `[B, O, 2 h + 1, 2 w + 1]`.

    On the CPU the rows and columns of even and of odd number are four ordinary convolutions by the taps that reach
    them, up to 1.8 times faster than the transposed one; with few channels putting them together costs more.
    """
    if x.device.type != "cpu" or kernel.shape[0] * kernel.shape[1] < WIDE or kernel.shape[2:] != (3, 3):
        return F.conv_transpose2d(x, kernel, stride=2)
    batch, height, width = x.shape[0], x.shape[2], x.shape[3]
    shape = (batch, kernel.shape[1], 2 * height + 1, 2 * width + 1)
    found = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    taps = kernel.transpose(0, 1).flip(2, 3)
    for row, column in itertools.product((0, 1), repeat=2):
        reaching = taps[:, :, row::2, column::2].contiguous(memory_format=torch.channels_last)
        found[:, :, row::2, column::2] = F.conv2d(x, reaching, padding=(1 - row, 1 - column))
    return found


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        x, styles, ring, kernel, padding, transposed, scaling = arguments
        ctx.save_for_backward(x, styles, ring, kernel)
        ctx.settings = padding, transposed, scaling
        z = scaling.scale(x, styles)
        z = z if ring is None else scaling.pad(z, ring)
        return conv_transpose(z, kernel) if transposed else F.conv2d(z, kernel, padding=padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, styles, ring, kernel = ctx.saved_tensors
        padding, transposed, scaling = ctx.settings
        needed, nothing = ctx.needs_input_grad[:3], (None, None, None, None)
        if torch.is_grad_enabled():
            function = functools.partial(plain, kernel=kernel, padding=padding, transposed=transposed)
            return (*gradients_by(function, (x, styles, ring), needed, gradients[0]), *nothing)
        stride, more = 2 if transposed else 1, 0 if ring is None else 2
        # Of the data of the convolution, only shape and format are read.
        shape = (*x.shape[:2], x.shape[2] + more, x.shape[3] + more)
        like = x if ring is None else torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))
        settings = ([stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1, [True, False, False])
        gradient = torch.ops.aten.convolution_backward(gradients[0], like, kernel, None, *settings)[0]
        grad_ring = None
        if ring is not None:
            grad_ring = ring_of(gradient).to(ring.dtype) if needed[2] else None
            gradient = gradient[:, :, 1:-1, 1:-1]
        return (*scaling.back(gradient, x, styles, *needed[:2]), grad_ring, *nothing)


def convolve(
    x: Tensor,
    styles: Tensor,
    ring: Tensor | None,
    kernel: Tensor,
    *,
    padding: int,
    transposed: bool,
    scaling: Scaling = Scaling(),
) -> Tensor:
    """See :func:`saminv.ops.modulated_conv.reference.convolve`; the kernel must ask for no gradient."""
    result: Tensor = _Convolution.apply(x, styles, ring, kernel, padding, transposed, scaling)
    return result


PARTS = Parts(convolve=convolve, scale=functools.partial(layer_epilogue, slope=1.0))


def modulated_conv2d(*args: Any, **kwargs: Any) -> Tensor:
    """See :func:`saminv.ops.modulated_conv.modulated_conv2d`."""
    return reference(*args, **kwargs, parts=PARTS)

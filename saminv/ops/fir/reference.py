"""Depthwise filters in plain torch."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Kernel = tuple[float, ...]


def blur(x: Tensor, kernel: Kernel, gain: float, padding: tuple[int, int]) -> Tensor:
    """Convolve every channel of ``x`` `[B, C, H, W]` with ``gain * outer(kernel, kernel)``."""
    result: Tensor = _Blur.apply(x, kernel, gain, padding)
    return result


def upsample2(x: Tensor, kernel: Kernel) -> Tensor:
    """Insert zeros between the pixels of ``x`` `[B, C, H, W]` and convolve with ``4 * outer(kernel, kernel)``."""
    channels, taps = x.shape[1], len(kernel)
    weight = _depthwise(kernel, 4.0, channels, x.dtype, x.device)
    # The full result has 2 n + taps - 2 pixels; the filter is centred as if it had one more tap in front.
    before = taps - 1 - (taps + 1) // 2
    after = taps - 2 - before
    if before == after:
        return F.conv_transpose2d(x, weight, stride=2, padding=before, groups=channels)
    full = F.conv_transpose2d(x, weight, stride=2, groups=channels)
    return F.pad(full, (-before, -after, -before, -after))


class _Blur(torch.autograd.Function):
    """The adjoint of a blur is a blur with the kernel reversed.

    Said explicitly because a depthwise convolution runs faster than the general backward of a convolution, and
    because it is then differentiable as often as one likes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Kernel, gain: float, padding: tuple[int, int]) -> Tensor:
        ctx.arguments = (kernel, gain, padding)
        channels = x.shape[1]
        # conv2d correlates; a convolution needs the kernel reversed.
        weight = _depthwise(kernel[::-1], gain, channels, x.dtype, x.device)
        before, after = padding
        if before == after and before >= 0:
            return F.conv2d(x, weight, padding=before, groups=channels)
        return F.conv2d(F.pad(x, (before, after, before, after)), weight, groups=channels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        kernel, gain, (before, after) = ctx.arguments
        reach = len(kernel) - 1
        gradient = _Blur.apply(gradients[0], kernel[::-1], gain, (reach - before, reach - after))
        return gradient, None, None, None


@functools.lru_cache(maxsize=64)
def _depthwise(kernel: Kernel, gain: float, channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``gain * outer(kernel, kernel)`` once per channel, `[C, 1, k, k]`."""
    # A tensor made under inference_mode could not serve a later differentiable call.
    with torch.inference_mode(False), torch.no_grad():
        taps = torch.tensor(kernel, dtype=torch.float64)
        weight = (gain * torch.outer(taps, taps)).to(dtype=dtype, device=device)
        return weight.repeat(channels, 1, 1, 1)

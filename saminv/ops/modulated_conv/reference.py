"""Plain torch modulated convolution: y = d * conv(s * x, W)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .._precision import widen
from ..fir.reference import blur, upsample2
from ..instance_padding.reference import pad_ring
from ..layer_epilogue.reference import GAIN, TAPS

EPS = 1e-8


def squared_weight(weight: Tensor) -> Tensor:
    """Sum of squares of each kernel: `[O, I, k, k]` -> `[O, I]`; float32 from half precision."""
    return widen(weight).square().sum(dim=(2, 3))


def demodulation(styles: Tensor, weight_square: Tensor) -> Tensor:
    """Inverse norm of each scaled kernel: `[B, I]`, `[O, I]` -> `[B, O]`; float32 from half precision."""
    return torch.rsqrt(widen(styles).square() @ widen(weight_square).t() + EPS)


def scaled(x: Tensor, scale: Tensor, noise: Tensor | None = None) -> Tensor:
    """Multiply each channel of `[B, C, h, w]` by its entry of `[B, C]` and add noise; the type stays that of ``x``."""
    y = widen(x) * widen(scale)[:, :, None, None]
    return (y if noise is None else y + noise).to(x.dtype)


def convolve(
    x: Tensor, styles: Tensor, ring: Tensor | None, kernel: Tensor, *, padding: int, transposed: bool
) -> Tensor:
    """Scale the channels, surround them by a ring if there is one, and convolve, transposed with stride 2."""
    z = scaled(x, styles)
    z = z if ring is None else pad_ring(z, ring)
    if transposed:
        return F.conv_transpose2d(z, kernel, stride=2)
    return F.conv2d(z, kernel, padding=padding)


@dataclass(frozen=True)
class Parts:
    """The parts of a modulated convolution that an implementation may have of its own; here those in plain torch."""

    convolve: Callable[..., Tensor] = convolve
    scale: Callable[..., Tensor] = scaled
    pad: Callable[..., Tensor] = pad_ring
    blur: Callable[..., Tensor] = blur


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    noise: Tensor | None = None,
    demodulate: bool = True,
    up: int = 1,
    padding: int | None = None,
    ring: Tensor | None = None,
    filtered: bool = True,
    weight_square: Tensor | None = None,
    parts: Parts = Parts(),
) -> Tensor:
    """See :func:`saminv.ops.modulated_conv.modulated_conv2d`."""
    kind, side, kernel = x.dtype, weight.shape[-1], weight.to(x.dtype)
    if up == 2 and side > 1:
        # The transposed convolution gives 2n + 1 pixels, the filter leaves 2n.
        x = parts.convolve(x, styles, None, kernel.transpose(0, 1), padding=0, transposed=True)
        x = x if ring is None else parts.pad(x, ring)
        around = 1 if ring is None else 0
        x = parts.blur(x, TAPS, GAIN, (around, around)) if filtered else x
    else:
        ring = ring if up == 1 else None
        around = 0 if ring is not None else side // 2 if padding is None else padding
        x = parts.convolve(x, styles, ring, kernel, padding=around, transposed=False)
        x = x if up == 1 else upsample2(x, TAPS)
    if demodulate:
        squares = squared_weight(weight) if weight_square is None else weight_square
        return parts.scale(x, demodulation(styles, squares), noise=noise)
    return x if noise is None else (widen(x) + noise).to(kind)

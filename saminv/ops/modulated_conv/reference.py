"""Plain torch modulated convolution: y = d * conv(s * x, W)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .._precision import widen
from ..fir import blur, upsample_rgb
from ..instance_padding import pad_ring

EPS = 1e-8


def squared_weight(weight: Tensor) -> Tensor:
    """Sum of squares of each kernel: `[O, I, k, k]` -> `[O, I]`; float32 from half precision."""
    return widen(weight).square().sum(dim=(2, 3))


def demodulation(styles: Tensor, weight_square: Tensor) -> Tensor:
    """Inverse norm of each scaled kernel: `[B, I]`, `[O, I]` -> `[B, O]`; float32 from half precision."""
    return torch.rsqrt(widen(styles).square() @ widen(weight_square).t() + EPS)


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
) -> Tensor:
    """See :func:`saminv.ops.modulated_conv.modulated_conv2d`."""
    kind, side, kernel = x.dtype, weight.shape[-1], weight.to(x.dtype)
    x = scaled(x, styles)
    if up == 2 and side == 1:
        x = upsample_rgb(F.conv2d(x, kernel))
    elif up == 2:
        # The transposed convolution gives 2n + 1 pixels, the filter leaves 2n.
        x = F.conv_transpose2d(x, kernel.transpose(0, 1), stride=2)
        x = x if ring is None else pad_ring(x, ring)
        around = 1 if ring is None else 0
        x = blur(x, padding=(around, around)) if filtered else x
    elif ring is not None:
        x = F.conv2d(pad_ring(x, ring), kernel)
    else:
        x = F.conv2d(x, kernel, padding=side // 2 if padding is None else padding)
    if demodulate:
        squares = squared_weight(weight) if weight_square is None else weight_square
        x = scaled(x, demodulation(styles, squares))
    return x if noise is None else (widen(x) + noise).to(kind)


def scaled(x: Tensor, scale: Tensor) -> Tensor:
    """Multiply each channel of `[B, C, h, w]` by its entry of `[B, C]`; the type stays that of ``x``."""
    return (widen(x) * widen(scale)[:, :, None, None]).to(x.dtype)

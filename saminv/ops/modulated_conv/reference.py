"""Plain torch modulated convolution: y = d * conv(s * x, W)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..fir import blur, upsample_rgb
from ..instance_padding import pad_ring

EPS = 1e-8


def squared_weight(weight: Tensor) -> Tensor:
    """Sum of squares of each kernel: `[O, I, k, k]` -> `[O, I]`."""
    return weight.square().sum(dim=(2, 3))


def demodulation(styles: Tensor, weight_square: Tensor) -> Tensor:
    """Inverse norm of each scaled kernel: `[B, I]`, `[O, I]` -> `[B, O]`."""
    return torch.rsqrt(styles.square() @ weight_square.t() + EPS)


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
    kernel = weight.shape[-1]
    x = x * styles[:, :, None, None]
    if up == 2 and kernel == 1:
        x = upsample_rgb(F.conv2d(x, weight))
    elif up == 2:
        # The transposed convolution gives 2n + 1 pixels, the filter leaves 2n.
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        x = x if ring is None else pad_ring(x, ring)
        around = 1 if ring is None else 0
        x = blur(x, padding=(around, around)) if filtered else x
    elif ring is not None:
        x = F.conv2d(pad_ring(x, ring), weight)
    else:
        x = F.conv2d(x, weight, padding=kernel // 2 if padding is None else padding)
    if demodulate:
        squares = squared_weight(weight) if weight_square is None else weight_square
        x = x * demodulation(styles, squares)[:, :, None, None]
    return x if noise is None else x + noise

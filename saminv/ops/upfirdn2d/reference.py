"""Plain torch: zero insertion, padding, depthwise convolution with a stride."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    *,
    up: tuple[int, int],
    down: tuple[int, int],
    pads: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
) -> Tensor:
    """See :func:`saminv.ops.upfirdn2d.upfirdn2d`; factors are (x, y), pads (left, right, top, bottom)."""
    x = F.pad(insert_zeros(x, up), pads)
    dx, dy = down
    if f is None:
        return x[:, :, ::dy, ::dx] * gain
    # Scaled before the cast: a float32 filter means the same filter for every precision of the image.
    f = (f * gain ** (f.dim() / 2)).to(device=x.device, dtype=x.dtype)
    # conv2d correlates; a convolution needs the filter reversed.
    f = f if flip_filter else f.flip(tuple(range(f.dim())))
    if f.dim() == 2:
        return _depthwise(x, f, (dy, dx))
    return _depthwise(_depthwise(x, f[None], (1, dx)), f[:, None], (dy, 1))


def insert_zeros(x: Tensor, up: tuple[int, int]) -> Tensor:
    """Put ``up - 1`` zeros after every pixel: `[B, C, H, W]` -> `[B, C, H * uy, W * ux]`."""
    (ux, uy), (batch, channels, height, width) = up, x.shape
    if (ux, uy) == (1, 1):
        return x
    spread = F.pad(x.reshape(batch, channels, height, 1, width, 1), (0, ux - 1, 0, 0, 0, uy - 1))
    return spread.reshape(batch, channels, height * uy, width * ux)


def _depthwise(x: Tensor, f: Tensor, stride: tuple[int, int]) -> Tensor:
    channels = x.shape[1]
    return F.conv2d(x, f.expand(channels, 1, *f.shape), stride=stride, groups=channels)

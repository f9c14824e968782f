"""Up-sampling by a filter in plain torch, without the zeros between pixels.

A transposed convolution puts the filter at every pixel, which is what a convolution of pixels and zeros gives, and does
not multiply the zeros. A separable filter is put along one axis and then along the other.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from . import reference


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
    if f is None or up == (1, 1) or down != (1, 1):
        return reference.upfirdn2d(x, f, up=up, down=down, pads=pads, flip_filter=flip_filter, gain=gain)
    # Scaled before the cast, as in the reference.
    f = (f * gain ** (f.dim() / 2)).to(device=x.device, dtype=x.dtype)
    f = f.flip(tuple(range(f.dim()))) if flip_filter else f
    if f.dim() == 2:
        return _put(x, f, up, pads)
    x = _put(x, f[None], (up[0], 1), (*pads[:2], 0, 0))
    return _put(x, f[:, None], (1, up[1]), (0, 0, *pads[2:]))


def _put(x: Tensor, f: Tensor, up: tuple[int, int], pads: tuple[int, int, int, int]) -> Tensor:
    """Put the filter `[kh, kw]` at every pixel, ``up`` pixels (x, y) apart, and pad or crop what comes of it."""
    channels, (height, width), (ux, uy), (left, right, top, bottom) = x.shape[1], f.shape, up, pads
    # Filters that lie over the border count with all of their length.
    left, right, top, bottom = left - width + 1, right - width + ux, top - height + 1, bottom - height + uy
    crop_x, crop_y = max(0, min(-left, -right)), max(0, min(-top, -bottom))
    kernel, padding = f.expand(channels, 1, height, width), (crop_y, crop_x)
    x = F.conv_transpose2d(x, kernel, stride=(uy, ux), padding=padding, groups=channels)
    rest = (left + crop_x, right + crop_x, top + crop_y, bottom + crop_y)
    return F.pad(x, rest) if any(rest) else x

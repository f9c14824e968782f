"""Plain torch convolution with resampling.

The definition is: up-sample (filter), pad, convolve, filter and down-sample. Filter and convolution commute, so the
convolution runs at the lower resolution: transposed and before the filter when up-sampling, strided and after it when
down-sampling.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..upfirdn2d import upfirdn2d

Pads = tuple[int, int, int, int]


def conv2d_resample(
    x: Tensor,
    weight: Tensor,
    f: Tensor | None,
    *,
    up: int,
    down: int,
    pads: Pads,
    groups: int,
    flip_weight: bool,
    flip_filter: bool,
) -> Tensor:
    """See :func:`saminv.ops.conv2d_resample.conv2d_resample`; ``pads`` includes what the filters need."""
    if up == 1 and down == 1:
        return _convolve(F.pad(x, pads), weight, 1, groups, flip_weight)
    if up == 1:
        # A 1x1 kernel sees only the pixels that are kept.
        pointwise = weight.shape[2:] == (1, 1)
        x = upfirdn2d(x, f, down=down if pointwise else 1, padding=pads, flip_filter=flip_filter)
        return _convolve(x, weight, 1 if pointwise else down, groups, flip_weight)
    x, pads = _convolve_transposed(x, weight, up, groups, flip_weight), _remaining(pads, weight, up)
    x = upfirdn2d(x, f, padding=pads, gain=up**2, flip_filter=flip_filter)
    return x if down == 1 else upfirdn2d(x, f, down=down, flip_filter=flip_filter)


def _convolve(x: Tensor, weight: Tensor, stride: int, groups: int, flip_weight: bool) -> Tensor:
    return F.conv2d(x, weight if flip_weight else weight.flip((2, 3)), stride=stride, groups=groups)


def _convolve_transposed(x: Tensor, weight: Tensor, up: int, groups: int, flip_weight: bool) -> Tensor:
    """Insert zeros and convolve in full overlap: `[B, I, H, W]` -> `[B, O, (H - 1) * up + kh, ...]`."""
    out_channels, in_channels, *size = weight.shape
    weight = weight.reshape(groups, out_channels // groups, in_channels, *size).transpose(1, 2)
    weight = weight.reshape(groups * in_channels, out_channels // groups, *size)
    # conv_transpose2d convolves where conv2d correlates.
    return F.conv_transpose2d(x, weight.flip((2, 3)) if flip_weight else weight, stride=up, groups=groups)


def _remaining(pads: Pads, weight: Tensor, up: int) -> Pads:
    """What is left of the padding after a transposed convolution, which pads by itself; negative crops."""
    height, width = weight.shape[2:]
    return pads[0] - (width - 1), pads[1] - (width - up), pads[2] - (height - 1), pads[3] - (height - up)

"""Modulated convolution whose scaling, filter and padding are kernels; the convolution itself is torch's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..fir.triton import blur
from ..instance_padding.triton import pad_ring
from ..layer_epilogue.reference import GAIN, TAPS
from ..layer_epilogue.triton import layer_epilogue
from .reference import demodulation, squared_weight
from .reference import modulated_conv2d as reference


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
    if up == 2 and side == 1:
        return reference(x, weight, styles, noise=noise, demodulate=demodulate, up=up, weight_square=weight_square)
    x = layer_epilogue(x, styles, slope=1.0)
    if up == 2:
        # The transposed convolution gives 2n + 1 pixels, the filter leaves 2n.
        x = F.conv_transpose2d(x, kernel.transpose(0, 1), stride=2)
        x = x if ring is None else pad_ring(x, ring)
        around = 1 if ring is None else 0
        x = blur(x, TAPS, GAIN, (around, around)) if filtered else x
    elif ring is not None:
        x = F.conv2d(pad_ring(x, ring), kernel)
    else:
        x = F.conv2d(x, kernel, padding=side // 2 if padding is None else padding)
    if demodulate:
        squares = squared_weight(weight) if weight_square is None else weight_square
        return layer_epilogue(x, demodulation(styles, squares), noise=noise, slope=1.0)
    return x if noise is None else (x + noise).to(kind)

"""Plain torch toRGB."""

from __future__ import annotations

import torch
from torch import Tensor


def to_rgb(x: Tensor, weight: Tensor, styles: Tensor, bias: Tensor) -> Tensor:
    """See :func:`saminv.ops.to_rgb.to_rgb`."""
    batch, _, height, width = x.shape
    kernels = weight[:, :, 0, 0] * styles[:, None, :]
    # A view on channels_last memory, so the product is one batched matrix multiplication.
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
    colours = torch.baddbmm(bias, pixels, kernels.transpose(1, 2))
    return colours.reshape(batch, height, width, -1).permute(0, 3, 1, 2)

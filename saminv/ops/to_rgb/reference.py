"""Plain torch toRGB."""

from __future__ import annotations

import torch
from torch import Tensor

from .._precision import widen


def to_rgb(
    x: Tensor, weight: Tensor, styles: Tensor, bias: Tensor, skip: Tensor | None = None, *, clamp: float | None = None
) -> Tensor:
    """See :func:`saminv.ops.to_rgb.to_rgb`."""
    return project(x, kernels_of(weight, styles), bias, skip, clamp=clamp)


def kernels_of(weight: Tensor, styles: Tensor) -> Tensor:
    """A matrix `[B, O, I]` for each image."""
    return widen(weight)[:, :, 0, 0] * widen(styles)[:, None, :]


def project(x: Tensor, kernels: Tensor, bias: Tensor, skip: Tensor | None, *, clamp: float | None) -> Tensor:
    """Features `[B, I, h, w]` by a matrix `[B, O, I]` for each image."""
    batch, _, height, width = x.shape
    # A view on channels_last memory, so the product is one batched matrix multiplication.
    pixels = widen(x).permute(0, 2, 3, 1).flatten(1, 2)
    colours = torch.baddbmm(widen(bias), pixels, kernels.transpose(1, 2))
    y = colours.reshape(batch, height, width, -1).permute(0, 3, 1, 2)
    y = y if clamp is None else y.clamp(-clamp, clamp)
    return y.to(x.dtype) if skip is None else (widen(skip) + y).to(torch.promote_types(x.dtype, skip.dtype))

"""Modulated convolution whose scaling, filter and padding are kernels; the convolution itself is torch's."""

from __future__ import annotations

import functools
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..fir.triton import blur
from ..instance_padding.triton import pad_ring
from ..layer_epilogue.triton import layer_epilogue, scale_gradients
from . import lean
from .reference import Parts
from .reference import modulated_conv2d as reference

scale = functools.partial(layer_epilogue, slope=1.0)
SCALING = lean.Scaling(scale, pad_ring, scale_gradients)


def _convolve(
    x: Tensor, styles: Tensor, ring: Tensor | None, kernel: Tensor, *, padding: int, transposed: bool
) -> Tensor:
    if not kernel.requires_grad:
        return lean.convolve(x, styles, ring, kernel, padding=padding, transposed=transposed, scaling=SCALING)
    z = scale(x, styles)
    z = z if ring is None else pad_ring(z, ring)
    return F.conv_transpose2d(z, kernel, stride=2) if transposed else F.conv2d(z, kernel, padding=padding)


PARTS = Parts(_convolve, scale, pad_ring, blur)


def modulated_conv2d(*args: Any, **kwargs: Any) -> Tensor:
    """See :func:`saminv.ops.modulated_conv.modulated_conv2d`."""
    return reference(*args, **kwargs, parts=PARTS)

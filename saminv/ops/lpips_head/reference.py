"""Plain torch head of LPIPS."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-10
SHORTEST = 1e-15
"""Length below which a feature vector counts as zero."""


def unit_length(features: Tensor, eps: float = EPS) -> Tensor:
    """Divide features `[B, C, h, w]` by their length over the channels plus ``eps``.

    The gradient is finite where a whole feature vector is zero, which rectified networks produce in flat regions.
    """
    # The floor changes no value (a length of 1e-15 is nothing beside eps) but stops the square root's infinite slope.
    length = features.square().sum(dim=1, keepdim=True).clamp_min(SHORTEST**2).sqrt()
    return features / (length + eps)


def lpips_head(features: Tensor, target: Tensor, weights: Tensor, eps: float = EPS) -> Tensor:
    """See :func:`saminv.ops.lpips_head.lpips_head`."""
    if features.dtype in (torch.float16, torch.bfloat16):
        features, target, weights = features.float(), target.float(), weights.float()
    difference = (unit_length(features, eps) - target).square()
    return F.conv2d(difference, weights.to(difference.dtype).reshape(1, -1, 1, 1))

"""Plain torch head of LPIPS."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .._precision import widen

EPS = 1e-10
SHORTEST = 1e-15
"""Length below which a feature vector counts as zero."""


def unit_length(features: Tensor, eps: float = EPS) -> Tensor:
    """Divide features `[B, C, h, w]` by their length over the channels plus ``eps``.

    The result is float32 from half precision, in which squares overflow. The gradient is finite where a whole feature
    vector is zero, which rectified networks produce in flat regions.
    """
    # The floor changes no value (a length of 1e-15 is nothing beside eps) but stops the square root's infinite slope.
    features = widen(features)
    length = features.square().sum(dim=1, keepdim=True).clamp_min(SHORTEST**2).sqrt()
    return features / (length + eps)


def lpips_head(features: Tensor, target: Tensor, weights: Tensor, eps: float = EPS) -> Tensor:
    """See :func:`saminv.ops.lpips_head.lpips_head`."""
    difference = (unit_length(features, eps) - widen(target)).square()
    return F.conv2d(difference, weights.to(difference.dtype).reshape(1, -1, 1, 1))

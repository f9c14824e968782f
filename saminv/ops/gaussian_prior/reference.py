"""Plain torch Gaussian prior."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def gaussian_prior(styles: Tensor, centre: Tensor, precision: Tensor, slope: float) -> Tensor:
    """See :func:`saminv.ops.gaussian_prior.gaussian_prior`."""
    difference = F.leaky_relu(styles.double(), slope) - centre.double()
    return ((difference @ precision.double()) * difference).sum(dim=(1, 2))

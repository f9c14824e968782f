"""Plain torch sum of squares."""

from __future__ import annotations

import torch
from torch import Tensor


def scaled_square(x: Tensor, units: Tensor | None) -> Tensor:
    """See :func:`saminv.ops.scaled_square.scaled_square`."""
    if x.dtype in (torch.float16, torch.bfloat16):
        x, units = x.float(), None if units is None else units.float()
    x = x if units is None else x / units[:, None, None]
    return x.square().flatten(1).sum(dim=1)

"""Half precision: features may have it beside small operands of float32.

An op computes in float32 what it does not leave to a convolution, and rounds once to the type of the features.
"""

from __future__ import annotations

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)


def widen(x: Tensor) -> Tensor:
    """float32 from half precision, other types as they are."""
    return x.float() if x.dtype in HALF else x

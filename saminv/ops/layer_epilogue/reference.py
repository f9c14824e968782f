"""Plain torch layer epilogue."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def layer_epilogue(
    x: Tensor,
    demodulation: Tensor,
    bias: Tensor,
    noise: Tensor | None = None,
    *,
    slope: float = 0.2,
    gain: float = 1.0,
    clamp: float | None = None,
) -> Tensor:
    """See :func:`saminv.ops.layer_epilogue.layer_epilogue`."""
    # Leaky ReLU commutes with a positive gain, so the gain costs nothing on the small tensors.
    offset = (bias * gain)[None, :, None, None]
    if noise is not None:
        offset = offset + noise * gain
    x = F.leaky_relu(torch.addcmul(offset, x, (demodulation * gain)[:, :, None, None]), slope)
    return x if clamp is None else x.clamp(-clamp, clamp)

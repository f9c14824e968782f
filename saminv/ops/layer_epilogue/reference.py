"""Plain torch layer epilogue."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .._precision import widen
from ..fir.reference import blur as filter_blur

TAPS = (0.125, 0.375, 0.375, 0.125)
GAIN = 4.0
"""Of the filter after a transposed convolution."""


def layer_epilogue(
    x: Tensor,
    demodulation: Tensor,
    bias: Tensor | None = None,
    noise: Tensor | None = None,
    delta: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    slope: float = 0.2,
    gain: float = 1.0,
    clamp: float | None = None,
    blur: int | None = None,
) -> Tensor:
    """See :func:`saminv.ops.layer_epilogue.layer_epilogue`."""
    # Half precision is rounded once, at the end.
    kind, x = x.dtype, widen(x)
    if blur is not None:
        x = filter_blur(x, TAPS, GAIN, (blur, blur))
    # Leaky ReLU commutes with a positive gain, so the gain costs nothing on the small tensors. Bias and noise are added
    # one by one: their sum would be a full feature in another memory format than x, which slows all that follows. The
    # product is ours and no derivative needs it, so the rest happens in place.
    x = x * (widen(demodulation) * gain)[:, :, None, None]
    if noise is not None:
        x += widen(noise) * gain
    if bias is not None:
        x += (widen(bias) * gain)[None, :, None, None]
    x = F.leaky_relu(x, slope, inplace=True)
    x = x if clamp is None else x.clamp(-clamp, clamp)
    if delta is not None:
        x = x + delta if mask is None else x + widen(delta) * mask
    return x.to(kind)

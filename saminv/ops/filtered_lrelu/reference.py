"""Plain torch filtered leaky ReLU: three ops in a row."""

from __future__ import annotations

from torch import Tensor

from ..bias_act import bias_act
from ..upfirdn2d import upfirdn2d


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None,
    *,
    up: int,
    down: int,
    pads: tuple[int, int, int, int],
    gain: float,
    slope: float,
    clamp: float | None,
    flip: bool,
) -> Tensor:
    """See :func:`saminv.ops.filtered_lrelu.filtered_lrelu`."""
    x = upfirdn2d(bias_act(x, b), fu, up=up, padding=pads, gain=up**2, flip_filter=flip)
    x = bias_act(x, act="lrelu", alpha=slope, gain=gain, clamp=clamp)
    return upfirdn2d(x, fd, down=down, flip_filter=flip)

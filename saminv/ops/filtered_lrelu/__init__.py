"""Leaky ReLU between an up-sampling and a down-sampling filter, so that it makes no aliases (StyleGAN3).

Derivatives: with respect to ``x`` and ``b``, of every order (the usual subgradients at the kink and the clamp). The
filters are constants. The lean form keeps nothing for them but the slope of each pixel.
"""

from __future__ import annotations

import math

from torch import Tensor

from ..._errors import InputError
from .._dispatch import choose
from ..upfirdn2d import Factor, parse_pads
from . import lean, reference
from ._design import design_lowpass_filter

__all__ = ["design_lowpass_filter", "filtered_lrelu"]


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    b: Tensor | None = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: Factor = 0,
    gain: float = math.sqrt(2.0),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    impl: str = "auto",
) -> Tensor:
    """Add a bias, up-sample, apply a leaky ReLU with gain and clamp, down-sample.

    Args:
        x: `[B, C, H, W]`, any range.
        fu: Filter of the up-sampling, `[k]` or `[kh, kw]`, see :func:`design_lowpass_filter`.
        fd: Filter of the down-sampling.
        b: Bias `[C]`.
        up: Factor of the up-sampling, which keeps the mean.
        down: Factor of the down-sampling.
        padding: Zeros around the up-sampled image, in its pixels; an int, (x, y) or (left, right, top, bottom);
            negative crops. Both filters take from it.
        gain: Factor after the leaky ReLU.
        slope: Slope of the leaky ReLU below zero.
        clamp: Largest magnitude after the gain, before the down-sampling.
        flip_filter: False convolves, True correlates.
        impl: "auto" | "reference" | "lean".

    Returns:
        `[B, C, H', W']` with ``H' = ceil((H * up + top + bottom - (ku - 1) - (kd - 1)) / down)``.

    Raises:
        InputError: shapes that do not fit, a factor below 1, or a negative clamp.

    Reference:
        Karras et al., 2021, arXiv 2106.12423.
    """
    if x.dim() != 4:
        raise InputError(f"Expected a tensor [B, C, H, W], got shape {tuple(x.shape)}.")
    if b is not None and b.shape != x.shape[1:2]:
        raise InputError(f"The bias must be [{x.shape[1]}], got shape {tuple(b.shape)}.")
    if clamp is not None and clamp < 0:
        raise InputError(f"clamp must not be negative, got {clamp}; None turns it off.")
    implementations = {"reference": reference.filtered_lrelu, "lean": lean.filtered_lrelu}
    function = choose("filtered_lrelu", impl, implementations, x)
    result: Tensor = function(
        x, fu, fd, b, up=up, down=down, pads=parse_pads(padding), gain=gain, slope=slope, clamp=clamp, flip=flip_filter
    )
    return result

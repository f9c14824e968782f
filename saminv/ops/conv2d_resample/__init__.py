"""Convolution with up-sampling before and down-sampling after it, with the low-pass filter that either needs.

Derivatives: with respect to ``x`` and ``weight``, of every order. The filter is a constant.
"""

from __future__ import annotations

from torch import Tensor

from ..._errors import InputError
from .._dispatch import choose
from ..upfirdn2d import Factor, add_pads, downsampling_pads, parse_pads, upsampling_pads
from . import reference

__all__ = ["conv2d_resample"]


def conv2d_resample(
    x: Tensor,
    weight: Tensor,
    f: Tensor | None = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: Factor = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
    impl: str = "auto",
) -> Tensor:
    """Up-sample by ``up``, convolve, down-sample by ``down``.

    Args:
        x: `[B, I, H, W]`, any range.
        weight: Kernel `[O, I / groups, kh, kw]`.
        f: Low-pass filter for both resamplings, see ``setup_filter``; unused where both factors are 1.
        up: Factor of the up-sampling; the mean of the image is kept.
        down: Factor of the down-sampling.
        padding: Zeros around the up-sampled image, in its pixels; an int, (x, y) or (left, right, top, bottom). What
            the filter needs is added, so that ``kh // 2`` keeps the size (times ``up / down``).
        groups: As in ``conv2d``.
        flip_weight: True correlates, as ``conv2d`` does; False convolves.
        flip_filter: False convolves with ``f``, True correlates.
        impl: "auto" | "reference" | "triton".

    Returns:
        `[B, O, H', W']`.

    Raises:
        InputError: shapes that do not fit, or a factor below 1.

    Reference:
        Karras et al., 2020, arXiv 1912.04958.
    """
    _check(x, weight, groups)
    if min(up, down) < 1:
        raise InputError(f"up and down must be positive ints, got up={up}, down={down}.")
    pads = parse_pads(padding)
    if up > 1:
        pads = add_pads(pads, upsampling_pads(f, (up, up)))
    if down > 1:
        pads = add_pads(pads, downsampling_pads(f, (down, down)))
    function = choose("conv2d_resample", impl, {"reference": reference.conv2d_resample}, x, weight)
    result: Tensor = function(
        x, weight, f, up=up, down=down, pads=pads, groups=groups, flip_weight=flip_weight, flip_filter=flip_filter
    )
    return result


def _check(x: Tensor, weight: Tensor, groups: int) -> None:
    if x.dim() != 4 or weight.dim() != 4:
        raise InputError(
            f"Expected x [B, I, H, W] and weight [O, I, kh, kw], got {tuple(x.shape)} and {tuple(weight.shape)}."
        )
    if groups < 1 or x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise InputError(
            f"A weight of shape {tuple(weight.shape)} in {groups} groups does not fit {x.shape[1]} input channels."
        )

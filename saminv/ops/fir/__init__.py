"""Short fixed low-pass filters on every channel: the fast paths of StyleGAN2 next to :mod:`saminv.ops.upfirdn2d`.

Both functions give what ``upfirdn2d`` gives with the normalised filter, in one depthwise convolution that keeps
channels_last memory. They are linear and have reverse-mode derivatives of every order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..._errors import InputError
from .._dispatch import choose
from . import reference

__all__ = ["blur", "upsample_rgb"]

Taps = Sequence[float]


def blur(
    x: Tensor,
    taps: Taps = (1, 3, 3, 1),
    gain: float = 4.0,
    padding: tuple[int, int] = (1, 1),
    *,
    impl: str = "auto",
) -> Tensor:
    """Filter along both axes; with the defaults, the blur after StyleGAN2's transposed convolution.

    Args:
        x: `[B, C, H, W]`, any range.
        taps: One-dimensional filter, used on both axes and normalised to sum 1.
        gain: Factor on the result.
        padding: Zeros before and after, on both axes; negative values crop.
        impl: "auto" | "reference" | "triton".

    Returns:
        `[B, C, H', W']` with ``H' = H + sum(padding) - len(taps) + 1``, in the memory format of ``x``.

    Raises:
        InputError: wrong number of dimensions, taps that sum to zero, or an image smaller than the filter.

    Reference:
        Karras et al., 2020, arXiv 1912.04958.
    """
    kernel = _check(x, taps)
    before, after = (int(p) for p in padding)
    if min(x.shape[2:]) + before + after < len(kernel):
        size = f"{x.shape[2]}x{x.shape[3]}"
        raise InputError(f"blur: {size} pixels padded by {before}+{after} are fewer than the {len(kernel)} taps.")
    function = choose("blur", impl, {"reference": reference.blur, "triton": _kernel}, x)
    result: Tensor = function(x, kernel, float(gain), (before, after))
    return result


def _kernel(*args: Any) -> Tensor:
    from .triton import blur as kernel

    return kernel(*args)


def upsample_rgb(img: Tensor, taps: Taps = (1, 3, 3, 1), *, impl: str = "auto") -> Tensor:
    """Double the size of an image that keeps its mean, as on StyleGAN2's RGB skip path.

    Args:
        img: `[B, C, H, W]`, any range.
        taps: One-dimensional interpolation filter, used on both axes and normalised to sum 1.
        impl: "auto" | "reference" | "triton".

    Returns:
        `[B, C, 2 * H, 2 * W]`; beyond the border the image counts as zero.

    Raises:
        InputError: wrong number of dimensions, or taps that sum to zero.

    Reference:
        Karras et al., 2020, arXiv 1912.04958.
    """
    return choose("upsample_rgb", impl, {"reference": reference.upsample2}, img)(img, _check(img, taps))


def _check(x: Tensor, taps: Taps) -> tuple[float, ...]:
    """Check the arguments and return the taps normalised to sum 1."""
    if x.dim() != 4:
        raise InputError(f"Expected a tensor [B, C, H, W], got shape {tuple(x.shape)}.")
    total = float(sum(taps))
    if total == 0:
        raise InputError(f"Filter taps must not be empty or sum to zero, got {tuple(taps)}.")
    return tuple(float(tap) / total for tap in taps)

"""toRGB: a modulated 1x1 convolution without demodulation, added to the image so far.

Three outputs make the per-image kernel tiny, so here the styles scale the kernel instead of the activations.
Derivatives: with respect to every tensor argument, of every order; the kernel computes those of first order, the
reference those of higher order.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .._dispatch import choose
from .reference import to_rgb as _reference

__all__ = ["to_rgb"]


def to_rgb(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    bias: Tensor,
    skip: Tensor | None = None,
    *,
    clamp: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """Project features to colours: ``skip + clamp(conv(styles * x, weight) + bias)``.

    Args:
        x: `[B, I, h, w]`; may have half precision while the other tensors are float32.
        weight: `[O, I, 1, 1]`.
        styles: Scale of each input channel `[B, I]`, its gain included.
        bias: `[O]`.
        skip: The image so far `[B, O, h, w]`; none without.
        clamp: Bound on the colours, None without.
        impl: "auto" | "reference" | "triton".

    Returns:
        `[B, O, h, w]`, in the type of ``x``, or of ``skip`` where that is wider: an image of float32 stays one.

    Reference:
        Karras et al., 2020, arXiv 1912.04958, section 4.1.
    """
    function = choose("to_rgb", impl, {"reference": _reference, "triton": _kernel}, x, weight, styles, bias)
    result: Tensor = function(x, weight, styles, bias, skip, clamp=clamp)
    return result


def _kernel(*args: Any, **kwargs: Any) -> Tensor:
    from .triton import to_rgb as kernel

    return kernel(*args, **kwargs)

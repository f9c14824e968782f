"""toRGB: a modulated 1x1 convolution without demodulation.

Three outputs make the per-image kernel tiny, so here the styles scale the kernel instead of the activations.
Derivatives: with respect to every tensor argument, of every order.
"""

from __future__ import annotations

from torch import Tensor

from .._dispatch import choose
from .reference import to_rgb as _reference

__all__ = ["to_rgb"]


def to_rgb(x: Tensor, weight: Tensor, styles: Tensor, bias: Tensor, *, impl: str = "auto") -> Tensor:
    """Project features to colours.

    Args:
        x: `[B, I, h, w]`.
        weight: `[O, I, 1, 1]`.
        styles: Scale of each input channel `[B, I]`, its gain included.
        bias: `[O]`.
        impl: "auto" | "reference" | "triton".

    Returns:
        `[B, O, h, w]`.

    Reference:
        Karras et al., 2020, arXiv 1912.04958, section 4.1.
    """
    return choose("to_rgb", impl, {"reference": _reference}, x, weight, styles, bias)(x, weight, styles, bias)

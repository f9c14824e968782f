"""What follows the convolution of a StyleGAN2 layer: demodulate, noise, bias, leaky ReLU, gain, clamp.

Derivatives: with respect to every tensor argument, of every order.
"""

from __future__ import annotations

from torch import Tensor

from .._dispatch import choose
from .reference import layer_epilogue as _reference

__all__ = ["layer_epilogue"]


def layer_epilogue(
    x: Tensor,
    demodulation: Tensor,
    bias: Tensor,
    noise: Tensor | None = None,
    *,
    slope: float = 0.2,
    gain: float = 1.0,
    clamp: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """``clamp(gain * leaky_relu(demodulation * x + noise + bias))``.

    Args:
        x: Output of the convolution `[B, C, h, w]`.
        demodulation: Factor per image and channel `[B, C]`.
        bias: `[C]`.
        noise: `[1 or B, 1, h, w]`, already multiplied by its strength.
        gain: Positive factor after the activation.
        clamp: Bound on the result, None without.
        impl: "auto" | "reference" | "triton".

    Reference:
        Karras et al., 2020, arXiv 1912.04958, section 2.2.
    """
    function = choose("layer_epilogue", impl, {"reference": _reference}, x, demodulation, bias)
    return function(x, demodulation, bias, noise, slope=slope, gain=gain, clamp=clamp)

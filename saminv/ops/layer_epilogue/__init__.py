"""What follows the convolution of a StyleGAN2 layer: demodulate, noise, bias, leaky ReLU, gain, clamp, masked change.

Derivatives: with respect to every tensor argument, of every order. The kernel computes those of first order, but none
with respect to the mask; the reference computes those of higher order.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .._dispatch import choose
from .reference import layer_epilogue as _reference

__all__ = ["layer_epilogue"]


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
    impl: str = "auto",
) -> Tensor:
    """``clamp(gain * leaky_relu(demodulation * blur(x) + noise + bias)) + mask * delta``.

    ``x`` may have half precision while the other tensors are float32.

    Args:
        x: Output of the convolution `[B, C, h, w]`; `[B, C, h + 3 - 2 blur, w + 3 - 2 blur]` with a filter.
        demodulation: Factor per image and channel `[B, C]`.
        bias: `[C]`, none without.
        noise: `[1 or B, 1, h, w]`, already multiplied by its strength.
        delta: Change of the feature `[B, C, h, w]` (Eq. 3.4 of the SAM report), none without.
        mask: Of the change, `[B, 1, h, w]`; everywhere without.
        gain: Positive factor after the activation.
        clamp: Bound on the activation, None without.
        blur: Zeros around ``x`` for the filter [1, 3, 3, 1] that follows a transposed convolution; None has no filter.
        impl: "auto" | "reference" | "triton".

    Returns:
        `[B, C, h, w]`, in the type of ``x``.

    Reference:
        Karras et al., 2020, arXiv 1912.04958, section 2.2.
    """
    implementations = {"reference": _reference, "triton": _kernel}
    if mask is not None and mask.requires_grad:
        implementations.pop("triton")
    function = choose("layer_epilogue", impl, implementations, x, demodulation)
    result: Tensor = function(x, demodulation, bias, noise, delta, mask, slope=slope, gain=gain, clamp=clamp, blur=blur)
    return result


def _kernel(*args: Any, **kwargs: Any) -> Tensor:
    from .triton import layer_epilogue as kernel

    return kernel(*args, **kwargs)

"""What follows the convolution of a StyleGAN2 layer: demodulate, noise, bias, leaky ReLU, gain, clamp, masked change.

Derivatives: with respect to every tensor argument, of every order. The kernel computes those of first order, but none
with respect to the mask; the reference computes those of higher order. The lean form has all but those with respect to
the mask, and keeps nothing but the result for them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .._dispatch import choose
from .lean import layer_epilogue as _lean
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
    overwrite: bool = False,
    impl: str = "auto",
) -> Tensor:
    """``clamp(gain * leaky_relu(demodulation * blur(x) + noise + bias)) + mask * delta``.

    ``x`` may have half precision while the other tensors are float32.

    Args:
        x: Output of the convolution `[B, C, h, w]`; `[B, C, h + 3 - 2 blur, w + 3 - 2 blur]` with a filter.
        demodulation: Factor per image and channel `[B, C]`; not 0 where its derivative is asked for.
        bias: `[C]`, none without.
        noise: `[1 or B, 1, h, w]`, already multiplied by its strength.
        delta: Change of the feature `[B, C, h, w]` (Eq. 3.4 of the SAM report), none without.
        mask: Of the change, `[B, 1, h, w]`; everywhere without.
        gain: Positive factor after the activation.
        clamp: Bound on the activation, None without.
        blur: Zeros around ``x`` for the filter [1, 3, 3, 1] that follows a transposed convolution; None has no filter.
        overwrite: The result may take the memory of ``x``, which nothing else must read afterwards.
        impl: "auto" | "reference" | "lean" | "triton".

    Returns:
        `[B, C, h, w]`, in the type of ``x``.

    Reference:
        Karras et al., 2020, arXiv 1912.04958, section 2.2.
    """
    implementations = {"reference": _reference, "lean": _lean, "triton": _kernel}
    if slope < 0:
        implementations.pop("lean")
    if mask is not None and mask.requires_grad:
        implementations = {"reference": _reference}
    function = choose("layer_epilogue", impl, implementations, x, demodulation)
    settings = {"slope": slope, "gain": gain, "clamp": clamp, "blur": blur}
    if function is _lean:
        settings["overwrite"] = overwrite
    result: Tensor = function(x, demodulation, bias, noise, delta, mask, **settings)
    return result


def _kernel(*args: Any, **kwargs: Any) -> Tensor:
    from .triton import layer_epilogue as kernel

    return kernel(*args, **kwargs)

"""Modulated convolution (StyleGAN2), lean form: activations are scaled, the weight is shared by the whole batch.

Derivatives: with respect to ``x``, ``styles`` and ``noise`` of every order; with respect to ``weight`` only where the
weight asks for a gradient, so a frozen generator never computes a weight gradient. The lean form and the kernel keep
nothing but ``x`` for them; those of higher order come from the reference.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .._dispatch import choose
from .lean import modulated_conv2d as _lean
from .reference import demodulation, squared_weight
from .reference import modulated_conv2d as _reference

__all__ = ["demodulation", "modulated_conv2d", "squared_weight"]


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    noise: Tensor | None = None,
    demodulate: bool = True,
    up: int = 1,
    padding: int | None = None,
    ring: Tensor | None = None,
    filtered: bool = True,
    weight_square: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """Convolve with a kernel whose input channels are scaled per image.

    Args:
        x: Input `[B, I, h, w]`; may have half precision while the other tensors are float32.
        weight: Shared kernel `[O, I, k, k]`; the convolution reads it in the type of ``x``.
        styles: Scale of each input channel `[B, I]`.
        noise: Added to the output, broadcastable to `[B, 1, h', w']`.
        demodulate: Normalise each output channel by the norm of its scaled kernel.
        up: 1, or 2 for a transposed convolution followed by the [1, 3, 3, 1] low-pass filter.
        padding: Zeros around the input for ``up=1``; ``k // 2`` by default.
        ring: Padding of a 3x3 kernel in place of zeros: around the scaled input `[B, I, 4 (h + 1)]`, or, for ``up=2``,
            around what the transposed convolution gives, before the filter `[B, O, 4 (2 h + 2)]`.
        filtered: With the low-pass filter of ``up=2``; without, what comes after has to apply it, around ``ring``
            without zeros.
        weight_square: Kernel sums of squares `[O, I]` from :func:`squared_weight`, to save computing them again.
        impl: "auto" | "reference" | "lean", for a weight that asks for no gradient, | "triton".

    Returns:
        `[B, O, up * h, up * w]` (with the default padding), in the type of ``x``.

    Reference:
        Karras et al., 2020, arXiv 1912.04958, Eq. 1 to 3; for the ring Bai et al., 2022, arXiv 2203.11105.
    """
    implementations = {"reference": _reference, "lean": _lean, "triton": _kernel}
    if weight.requires_grad:
        implementations.pop("lean")
    function = choose("modulated_conv2d", impl, implementations, x, weight, styles)
    result: Tensor = function(
        x,
        weight,
        styles,
        noise=noise,
        demodulate=demodulate,
        up=up,
        padding=padding,
        ring=ring,
        filtered=filtered,
        weight_square=weight_square,
    )
    return result


def _kernel(*args: Any, **kwargs: Any) -> Tensor:
    from .triton import modulated_conv2d as kernel

    return kernel(*args, **kwargs)

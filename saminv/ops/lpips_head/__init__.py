"""One stage of LPIPS against a target whose features are kept: normalise, compare, weigh.

Derivatives: with respect to the features, of every order; the kernel computes the first, the reference those of
higher order. Target and weights are constants to the kernel.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..._errors import InputError
from .._dispatch import choose
from .reference import EPS, unit_length
from .reference import lpips_head as _reference

__all__ = ["EPS", "lpips_head", "unit_length"]


def lpips_head(features: Tensor, target: Tensor, weights: Tensor, *, eps: float = EPS, impl: str = "auto") -> Tensor:
    """Weighted squared distance at each pixel between unit features.

    Args:
        features: Of the image `[B, C, h, w]`, of any length.
        target: Of the target `[B, C, h, w]`, as :func:`unit_length` gives them; of any type.
        weights: Of the channels `[C]`, not negative; of any type.
        eps: Added to the length of a feature.
        impl: "auto" | "reference" | "triton".

    Returns:
        `[B, 1, h, w]`; float32 from half-precision features, whose squares are summed in float32.

    Raises:
        InputError: If the shapes do not go together.

    Reference:
        R. Zhang et al., 2018, arXiv 1801.03924, Eq. 1, before the mean.
    """
    if features.dim() != 4 or features.shape != target.shape or tuple(weights.shape) != (features.shape[1],):
        raise InputError(
            f"Features {list(features.shape)}, target {list(target.shape)} and weights {list(weights.shape)} do not go "
            "together; they must be [B, C, h, w], the same, and [C]."
        )
    implementations = {"reference": _reference, "triton": _kernel}
    if target.requires_grad or weights.requires_grad:
        implementations.pop("triton")
    function = choose("lpips_head", impl, implementations, features, target, weights)
    result: Tensor = function(features, target, weights, eps)
    return result


def _kernel(*args: Any) -> Tensor:
    from .triton import lpips_head as kernel

    return kernel(*args)

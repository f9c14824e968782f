"""Sum of squares of a feature in units of its channels: the size of a feature change.

Derivatives: with respect to the feature, of every order; the kernel computes the first, the reference those of higher
order. Units are constants to the kernel.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..._errors import InputError
from .._dispatch import choose
from .reference import scaled_square as _reference

__all__ = ["scaled_square"]


def scaled_square(x: Tensor, units: Tensor | None = None, *, impl: str = "auto") -> Tensor:
    """Sum of ``(x / units) ** 2`` over each image.

    Args:
        x: `[B, C, h, w]`.
        units: Of the channels `[C]`; 1 without.
        impl: "auto" | "reference" | "triton".

    Returns:
        `[B]`; float32 from half precision.

    Raises:
        InputError: If the units do not fit.

    Reference:
        Parmar, 2022, CMU-RI-TR-22-26 (arXiv 2206.08357), Eq. 3.7.
    """
    if x.dim() != 4 or (units is not None and tuple(units.shape) != (x.shape[1],)):
        shape = None if units is None else list(units.shape)
        raise InputError(f"A feature must be [B, C, h, w] and its units [C]; got {list(x.shape)} and {shape}.")
    implementations = {"reference": _reference, "triton": _kernel}
    if units is not None and units.requires_grad:
        implementations.pop("triton")
    result: Tensor = choose("scaled_square", impl, implementations, x)(x, units)
    return result


def _kernel(*args: Any) -> Tensor:
    from .triton import scaled_square as kernel

    return kernel(*args)

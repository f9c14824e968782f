"""Deviation of the style slots from the first one.

Derivatives: with respect to the styles, of every order; the lean form and the kernel compute the first together with
the value, the reference those of higher order. The plain norm has gradient zero where it vanishes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..._errors import InputError
from .._dispatch import choose
from .lean import deviation as _lean
from .reference import deviation as _reference

__all__ = ["deviation"]


def deviation(styles: Tensor, *, squared: bool = True, impl: str = "auto") -> Tensor:
    """Sum over slots of the norm of their difference from the first slot.

    Args:
        styles: `[B, L, D]`.
        squared: Sum squared norms, as the SAM report does, or the norms themselves, as its code does.
        impl: "auto" | "reference" | "lean" | "triton".

    Returns:
        `[B]`; float32 from half precision.

    Raises:
        InputError: If the styles have another shape.

    Reference:
        Parmar, 2022, CMU-RI-TR-22-26 (arXiv 2206.08357), second term of Eq. 3.6.
    """
    if styles.dim() != 3:
        raise InputError(f"Styles must be [B, L, D], got {list(styles.shape)}.")
    implementations = {"reference": _reference, "lean": _lean, "triton": _kernel}
    result: Tensor = choose("deviation", impl, implementations, styles)(styles, squared)
    return result


def _kernel(*args: Any) -> Tensor:
    from .triton import deviation as kernel

    return kernel(*args)

"""Squared Mahalanobis distance of styles that a leaky ReLU makes nearly Gaussian.

Derivatives: with respect to the styles, of every order; the lean form and the kernel compute the first together with
the value, the reference those of higher order. Centre and precision are constants to both.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..._errors import InputError
from .._dispatch import choose
from .lean import gaussian_prior as _lean
from .reference import gaussian_prior as _reference

__all__ = ["gaussian_prior"]


def gaussian_prior(
    styles: Tensor, centre: Tensor, precision: Tensor, *, slope: float = 5.0, impl: str = "auto"
) -> Tensor:
    """``(v - centre) @ precision @ (v - centre)`` with ``v = leaky_relu(styles)``, summed over slots.

    Args:
        styles: `[B, L, D]`.
        centre: `[D]`.
        precision: `[D, D]`, symmetric.
        slope: Of the leaky ReLU below zero.
        impl: "auto" | "reference" | "lean" | "triton".

    Returns:
        `[B]`, float64: small eigenvalues of a covariance leave few digits in float32.

    Raises:
        InputError: If the shapes do not go together.

    Reference:
        Wulff and Torralba, 2020, arXiv 2009.06529; Parmar, 2022, arXiv 2206.08357, first term of Eq. 3.6.
    """
    dim = styles.shape[-1]
    if styles.dim() != 3 or tuple(centre.shape) != (dim,) or tuple(precision.shape) != (dim, dim):
        raise InputError(
            f"Styles {list(styles.shape)}, centre {list(centre.shape)} and precision {list(precision.shape)} do not go "
            "together; they must be [B, L, D], [D] and [D, D]."
        )
    implementations = {"reference": _reference, "lean": _lean, "triton": _kernel}
    if centre.requires_grad or precision.requires_grad:
        implementations = {"reference": _reference}
    result: Tensor = choose("gaussian_prior", impl, implementations, styles)(styles, centre, precision, slope)
    return result


def _kernel(*args: Any) -> Tensor:
    from .triton import gaussian_prior as kernel

    return kernel(*args)

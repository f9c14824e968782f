"""Bias, activation, gain and clamp in one op.

Derivatives: with respect to ``x`` and ``b``, of every order; at kinks and at the clamp the usual subgradients.
"""

from __future__ import annotations

from torch import Tensor

from ..._errors import InputError
from .._dispatch import choose
from . import reference
from .reference import ACTIVATIONS

__all__ = ["ACTIVATIONS", "bias_act"]


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """Compute ``clip(gain * act(x + b), -clamp, clamp)``.

    Args:
        x: Any shape.
        b: Bias `[x.shape[dim]]`.
        dim: The dimension of ``x`` that the bias belongs to.
        act: A name in ``ACTIVATIONS``: linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish.
        alpha: Slope of ``lrelu`` below zero, 0.2 by default; the other activations have no parameter.
        gain: Factor after the activation; by default the one that keeps the variance, sqrt(2) for the ReLU family.
        clamp: Largest magnitude of the result, after the gain.
        impl: "auto" | "reference" | "triton".

    Returns:
        A tensor like ``x``.

    Raises:
        InputError: unknown activation, a bias that does not fit, or a negative clamp.

    Reference:
        Karras et al., 2020, arXiv 2006.06676 (the op of its generator and discriminator layers).
    """
    if act not in ACTIVATIONS:
        raise InputError(f"Unknown activation {act!r}; there are {', '.join(ACTIVATIONS)}.")
    if b is not None:
        _check_bias(x, b, dim)
    if clamp is not None and clamp < 0:
        raise InputError(f"clamp must not be negative, got {clamp}; None turns it off.")
    function = choose("bias_act", impl, {"reference": reference.bias_act}, x)
    result: Tensor = function(x, b, dim=dim, act=act, alpha=alpha, gain=gain, clamp=clamp)
    return result


def _check_bias(x: Tensor, b: Tensor, dim: int) -> None:
    if not -x.dim() <= dim < x.dim():
        raise InputError(f"dim={dim} is not a dimension of a tensor of shape {tuple(x.shape)}.")
    if b.dim() != 1 or b.shape[0] != x.shape[dim]:
        raise InputError(f"The bias must be [{x.shape[dim]}] (dimension {dim} of x), got shape {tuple(b.shape)}.")

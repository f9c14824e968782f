"""One step of Adam with a rate per image, in place.

Derivatives: none, it is what uses them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..._errors import InputError
from .._dispatch import choose
from .reference import adam_step as _reference

__all__ = ["adam_step"]


def adam_step(
    x: Tensor | None,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    rate: Tensor,
    second_bias: Tensor,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    scale: Tensor | float = 1.0,
    mask: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """Update both moments, and the variables by ``-rate * scale * first / (sqrt(second / second_bias) + eps)``.

    Args:
        x: Variables `[B, ...]`, changed in place; None only returns by how much they should become smaller.
        gradient: `[B, ...]`.
        first, second: Moments `[B, ...]`, changed in place.
        rate: Learning rate of each image `[B]`, divided by the bias of the first moment; 0 leaves its variables alone.
        second_bias: Bias of the second moment for each image `[B]`.
        betas: Decay of the moments.
        eps: Added to the root of the second moment.
        scale: Factor on the rate, broadcastable to the variables of an image.
        mask: `[B, 1, h, w]` for variables `[B, C, h, w]`, which neither matter nor change where it is 0.
        impl: "auto" | "reference" | "triton".

    Returns:
        ``x``, or the change where there is none.

    Raises:
        InputError: If the shapes do not go together.

    Reference:
        Kingma and Ba, 2015, arXiv 1412.6980, algorithm 1.
    """
    batch = len(gradient)
    others = [tensor for tensor in (x, first, second) if tensor is not None]
    if any(tensor.shape != gradient.shape for tensor in others) or not len(rate) == len(second_bias) == batch:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in (gradient, *others, rate, second_bias))
        raise InputError(f"Variables, gradient and moments need one shape, rate and bias a number per image: {shapes}.")
    if mask is not None and tuple(mask.shape) != (batch, 1, *gradient.shape[2:]):
        raise InputError(f"The mask must be [{batch}, 1, h, w] of variables [B, C, h, w], got {list(mask.shape)}.")
    function = choose("adam_step", impl, {"reference": _reference, "triton": _kernel}, gradient, *others)
    arguments = (x, gradient, first, second, rate, second_bias)
    result: Tensor = function(*arguments, betas=betas, eps=eps, scale=scale, mask=mask)
    return result


def _kernel(*args: Any, **kwargs: Any) -> Tensor:
    from .triton import adam_step as kernel

    return kernel(*args, **kwargs)

"""Modulated convolution of StyleGAN3, lean form: activations are scaled, the weight is shared by the whole batch.

Derivatives: with respect to ``x``, ``weight``, ``styles`` and ``input_gain``, of every order.
"""

from __future__ import annotations

from torch import Tensor

from ..._errors import InputError
from .._dispatch import choose
from . import reference

__all__ = ["modulated_conv_sg3"]

NORMALISATIONS = ("sample", "batch")


def modulated_conv_sg3(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    demodulate: bool = True,
    padding: int = 0,
    input_gain: Tensor | None = None,
    normalisation: str = "sample",
    impl: str = "auto",
) -> Tensor:
    """Convolve with a kernel whose input channels are scaled per image.

    With demodulation, the kernel of each output channel and the styles are first brought to a mean square of 1.

    Args:
        x: `[B, I, H, W]`, any range.
        weight: Shared kernel `[O, I, k, k]`.
        styles: Scale of each input channel `[B, I]`.
        demodulate: Normalise each output channel by the norm of its scaled kernel.
        padding: Zeros around ``x``.
        input_gain: Factor on the input, not demodulated; `[]`, `[I]` or `[B, I]`.
        normalisation: "sample" normalises the styles of each image; "batch" all of them together, as published, which
            lets an image depend on its neighbours (in the order of the demodulation's epsilon, 1e-8).
        impl: "auto" | "reference" | "triton".

    Returns:
        `[B, O, H + 2 * padding - k + 1, W + 2 * padding - k + 1]`.

    Raises:
        InputError: shapes that do not fit, or an unknown normalisation.

    Reference:
        Karras et al., 2021, arXiv 2106.12423; Karras et al., 2020, arXiv 1912.04958, Eq. 1 to 3.
    """
    _check(x, weight, styles)
    if normalisation not in NORMALISATIONS:
        raise InputError(f"normalisation must be one of {', '.join(NORMALISATIONS)}, got {normalisation!r}.")
    if input_gain is not None and input_gain.shape not in ((), styles.shape[1:], styles.shape):
        raise InputError(
            f"input_gain must be a scalar, {tuple(styles.shape[1:])} or {tuple(styles.shape)}, "
            f"got shape {tuple(input_gain.shape)}."
        )
    function = choose("modulated_conv_sg3", impl, {"reference": reference.modulated_conv_sg3}, x, weight, styles)
    result: Tensor = function(
        x,
        weight,
        styles,
        demodulate=demodulate,
        padding=padding,
        input_gain=input_gain,
        couple_batch=normalisation == "batch",
    )
    return result


def _check(x: Tensor, weight: Tensor, styles: Tensor) -> None:
    fits = x.dim() == 4 and weight.dim() == 4 and weight.shape[1] == x.shape[1] and styles.shape == x.shape[:2]
    if not fits:
        raise InputError(
            "Expected x [B, I, H, W], weight [O, I, k, k] and styles [B, I], "
            f"got {tuple(x.shape)}, {tuple(weight.shape)} and {tuple(styles.shape)}."
        )

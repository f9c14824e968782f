"""What an edit changed, and what it should not have changed."""

from __future__ import annotations

import torch
from torch import Tensor

from .._errors import InputError
from ._base import check_images, check_weight, weighted_mean

UNMOVED = 1e-6
"""A reference edit that moves its factor by no more than this has no effect to compare with."""


def edit_effect(
    before: Tensor,
    after: Tensor,
    reference_before: Tensor,
    reference_after: Tensor,
    *,
    period: float | None = None,
) -> Tensor:
    """Change of a factor by an edit, relative to the same edit of a reference: 1 is a full effect, 0 none.

    Args:
        before: Factor read off the reconstructions, `[B]`.
        after: Factor read off the edited reconstructions, `[B]`.
        reference_before: Factor read off the references, for instance the renders of in-domain codes, `[B]`.
        reference_after: Factor read off the edited references, `[B]`.
        period: For a factor on a circle, its period (2 pi for a hue in radians); changes take the shorter way round.

    Returns:
        `[B]`, not a number where the reference did not move (by 1e-6 or less).

    Raises:
        InputError: If the shapes differ or the period is not positive.
    """
    shapes = [tuple(t.shape) for t in (before, after, reference_before, reference_after)]
    if len(set(shapes)) > 1 or before.dim() != 1:
        raise InputError(f"Four factors of one shape [B] are needed; these have the shapes {shapes}.")
    moved = change(before, after, period)
    expected = change(reference_before, reference_after, period)
    return torch.where(expected.abs() > UNMOVED, moved / expected, torch.full_like(expected, torch.nan))


def change(before: Tensor, after: Tensor, period: float | None = None) -> Tensor:
    """Difference ``after - before``; with a period the shorter way round, in [-period / 2, period / 2).

    Raises:
        InputError: If the period is not positive.
    """
    difference = after - before
    if period is None:
        return difference
    if not period > 0:
        raise InputError(f"period={period} given; it must be positive, for example 2 pi for an angle in radians.")
    return torch.remainder(difference + period / 2, period) - period / 2


def latent_editing_consistency(code: Tensor, returned: Tensor) -> Tensor:
    """Distance between a code and the code that comes back when its edited picture is inverted and the edit undone.

    ``|w - f^-1(E(G(f(w))))|``, with an inversion E, a generator G and an edit f: the Euclidean norm over all styles.
    :func:`saminv.editing.editing_consistency` makes the round.

    Args:
        code: Codes of the pictures, `[B, D]` or `[B, L, D]`.
        returned: Codes of the edited pictures after the opposite edit, of the same shape.

    Returns:
        `[B]`, at least 0, in the unit of the codes; 0 if the round brings every code back. It grows with the number of
        styles: compare values of one generator only. The published script averages over pictures after leaving out
        the batches beyond the first and the last percentile; here every picture counts.

    Raises:
        InputError: If the shapes differ.

    Reference:
        O. Tov et al., "Designing an Encoder for StyleGAN Image Manipulation", 2021, arXiv:2102.02766, latent
        editing consistency (LEC).
    """
    if code.shape != returned.shape or code.dim() not in (2, 3):
        raise InputError(
            f"Codes of one shape, [B, D] or [B, L, D], are needed, not {list(code.shape)} and {list(returned.shape)}."
        )
    return (code - returned).flatten(1).norm(dim=1)


def drift(before_image: Tensor, after_image: Tensor, mask: Tensor | None = None) -> Tensor:
    """Root mean square change of the picture where it should not have changed.

    Args:
        before_image: Pictures before the edit, `[B, 3, H, W]` in [-1, 1].
        after_image: Pictures after it, of the same shape.
        mask: `[B, 1, H, W]` or `[1, 1, H, W]` in [0, 1], 1 where the picture should stay; None for everywhere.

    Returns:
        `[B]` in [0, 2], 0 where the mask is empty.

    Raises:
        InputError: If the shapes do not fit together.
    """
    check_images(before_image, "picture before the edit")
    check_images(after_image, "picture after the edit")
    if before_image.shape != after_image.shape:
        raise InputError(f"The pictures differ in shape: {list(before_image.shape)}, {list(after_image.shape)}.")
    if mask is None:
        mask = before_image.new_ones(1, 1, *before_image.shape[-2:])
    check_weight(mask, before_image, "mask")
    return weighted_mean((after_image - before_image).square(), mask).sqrt()

"""The τ rule: each segment goes to the most editable space that reconstructs it well enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ..regions import Formulation, Regions
from ._base import Segments, dense_ids, paint, segment_mean


def allocate(
    error: Mapping[str, Tensor],
    segments: Segments,
    spaces: Sequence[str],
    tau: float | Tensor,
    *,
    formulation: Formulation = "paper",
) -> Regions:
    """Give every segment the first space whose mean error over the segment is at most ``tau``, else the last space.

    A mean equal to ``tau`` passes, and a space is taken even if one between it and the last fails. Means are rounded to
    float32 and compared there, as in the published code.

    Args:
        error: Expected perceptual error by space, each `[B, 1, H, W]` >= 0.
        segments: Of the same images and size.
        spaces: In the order of editability, most editable first.
        tau: Threshold >= 0, in the units of the error maps; one for all images or one for each `[B]`.
        formulation: How the regions' masks are resized, see :func:`saminv.regions.resize_mask`.

    Raises:
        InputError: If ``tau`` is negative, no number or of another batch, there are no spaces, a map is missing, has
            another size than the segments, or holds negative or non-finite values.

    Reference:
        Parmar, "Spatially-Adaptive Multilayer GAN Inversion and Editing", 2022, CMU-RI-TR-22-26 (arXiv:2206.08357),
        sections 3.1 and 3.2.
    """
    each: list[Any] = tau.tolist() if isinstance(tau, Tensor) and tau.dim() else [tau]
    taus = torch.tensor([check_tau(one) for one in each])
    _check_maps(error, segments, spaces)
    index, sizes = dense_ids(segments.ids.to(error[spaces[0]].device))
    count = sizes.shape[1]
    means = torch.stack([segment_mean(error[space].float(), index, count) for space in spaces])
    if len(taus) not in (1, means.shape[1]):
        raise InputError(f"There are {len(taus)} values of tau for {means.shape[1]} images; give one, or one for each.")
    passes = means <= taus.to(means)[:, None]
    passes[-1] = True
    # argmax of a comparison returns the first place where it holds.
    choice = passes.to(torch.int8).argmax(0)
    return Regions(paint(choice, index), tuple(spaces), formulation)


def check_tau(tau: float) -> float:
    """Return ``tau`` as a float.

    Raises:
        InputError: If it is negative, not a number, or of another type than a number.
    """
    if isinstance(tau, bool) or not isinstance(tau, Real) or not float(tau) >= 0:
        raise InputError(f"tau must be a number >= 0 (0.1 to 0.45 are usual), not {tau!r}.")
    return float(tau)


def _check_maps(error: Mapping[str, Tensor], segments: Segments, spaces: Sequence[str]) -> None:
    if isinstance(spaces, str) or not spaces:
        raise InputError(f"allocate needs a list of spaces, at least one, the most editable first; got {spaces!r}.")
    missing = [space for space in spaces if space not in error]
    if missing:
        raise InputError(f"No error map for {', '.join(missing)}. There are maps for: {', '.join(error) or 'none'}.")
    batch, height, width = segments.ids.shape
    for space in spaces:
        if error[space].shape != (batch, 1, height, width):
            raise InputError(
                f"The error map of {space} is {list(error[space].shape)}, but the segments need "
                f"{[batch, 1, height, width]}; resize one of them first."
            )
        if not bool((error[space].isfinite() & (error[space] >= 0)).all()):
            raise InputError(f"The error map of {space} has negative or non-finite values; errors are finite and >= 0.")

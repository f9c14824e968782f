"""The τ rule: each segment goes to the most editable space that reconstructs it well enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Union, overload

import torch
from torch import Tensor

from .._errors import InputError
from ..regions import Formulation, Regions
from ._base import Segments, dense_ids, paint, segment_mean

Tau = Union[float, Mapping[str, float]]
"""A threshold, or thresholds by class name; "*" is that of all classes without one of their own."""


def allocate(
    error: Mapping[str, Tensor],
    segments: Segments,
    spaces: Sequence[str],
    tau: float | Tensor | Mapping[str, float],
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
        tau: Threshold >= 0, in the units of the error maps; one for all images, one for each `[B]`, one for each
            segment `[B, S]`, counted as by :func:`saminv.segment.dense_ids`, or one for each class by its name.
        formulation: How the regions' masks are resized, see :func:`saminv.regions.resize_mask`.

    Raises:
        InputError: If ``tau`` is negative, no number or of another batch, names classes that nobody knows of, there are
            no spaces, or a map is missing, has another size than the segments, or holds negative or non-finite values.

    Reference:
        Parmar, "Spatially-Adaptive Multilayer GAN Inversion and Editing", 2022, CMU-RI-TR-22-26 (arXiv:2206.08357),
        sections 3.1 and 3.2.
    """
    _check_maps(error, segments, spaces)
    index, sizes = dense_ids(segments.ids.to(error[spaces[0]].device))
    count = sizes.shape[1]
    means = torch.stack([segment_mean(error[space].float(), index, count) for space in spaces])
    passes = means <= thresholds(tau, segments).to(means)
    passes[-1] = True
    # argmax of a comparison returns the first place where it holds.
    choice = passes.to(torch.int8).argmax(0)
    return Regions(paint(choice, index), tuple(spaces), formulation)


def thresholds(tau: float | Tensor | Mapping[str, float], segments: Segments, usual: Tensor | None = None) -> Tensor:
    """The threshold of each segment, `[B, S]` float64, with segments counted as by :func:`dense_ids`.

    Args:
        tau: As for :func:`allocate`.
        segments: Of B images.
        usual: `[B]`, of the classes that ``tau`` names neither by themselves nor by "*".

    Raises:
        InputError: If ``tau`` does not fit the segments, or names classes although the segments have no names.
    """
    if isinstance(tau, Mapping):
        return _by_class(check_tau(tau), segments, usual)
    if not isinstance(tau, Tensor):
        tau = torch.tensor(check_tau(tau), dtype=torch.float64)
    batch, count = len(segments.ids), dense_ids(segments.ids)[1].shape[1]
    if not bool((tau >= 0).all()):
        raise InputError(f"tau must be >= 0 (0.1 to 0.45 are usual), not {tau.tolist()!r}.")
    if tuple(tau.shape) not in {(), (1,), (batch,), (batch, count), (1, count)}:
        raise InputError(
            f"tau has shape {list(tau.shape)} for {batch} images of up to {count} segments; give one number, one for "
            "each image, or one for each segment."
        )
    tau = tau.double() if tau.dim() == 2 else tau.double().reshape(-1, 1)
    return tau.expand(batch, count)


def _by_class(taus: Mapping[str, float], segments: Segments, usual: Tensor | None) -> Tensor:
    if "*" not in taus and usual is None:
        raise InputError("tau names single classes only; add '*' for all others, such as {'car': 0.4, '*': 0.25}.")
    if not segments.names and set(taus) != {"*"}:
        raise InputError(
            f"tau names the classes {', '.join(taus)}, but these segments have no names; give one number, or use a "
            "segmenter that knows classes."
        )
    sizes = dense_ids(segments.ids)[1]
    found = torch.empty(sizes.shape, dtype=torch.float64)
    for row, ids in enumerate(segments.ids):
        rest = taus.get("*", 0.0) if usual is None or "*" in taus else float(usual[row])
        known = [taus.get(segments.names.get(label, "*"), rest) for label in torch.unique(ids).tolist()]
        found[row] = torch.tensor(known + [rest] * (sizes.shape[1] - len(known)), dtype=torch.float64)
    return found.to(segments.ids.device)


@overload
def check_tau(tau: Mapping[str, float]) -> dict[str, float]: ...


@overload
def check_tau(tau: float) -> float: ...


def check_tau(tau: Any) -> Any:
    """Return ``tau`` as a float, or as floats by class name.

    Raises:
        InputError: If it is negative, not a number, or of another type than a number or a mapping.
    """
    if isinstance(tau, Mapping):
        if not tau or not all(isinstance(name, str) for name in tau):
            raise InputError(f"tau by class needs names, such as {{'car': 0.4, '*': 0.25}}; got {tau!r}.")
        return {name: check_tau(value) for name, value in tau.items()}
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

"""The τ rule: each segment goes to the most editable space that reconstructs it well enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Union, overload

import torch
from torch import Tensor

from .._errors import InputError
from ..regions import Formulation, Regions
from ._base import LARGE_AREA, Segments, dense_ids, paint, segment_mean

RELIEF = 2.5
"""By how many times a segment's error falls once far worse ones have left its styles; those are this much worse."""
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
    return SegmentErrors.of(error, segments, spaces).allocate(tau, formulation)


@dataclass(frozen=True, eq=False)
class SegmentErrors:
    """Mean error of each segment in each space, which is all that the τ rule looks at.

    Attributes:
        means: `[L, B, S]` float32 by space, image and segment, segments counted as by :func:`dense_ids`.
        segments: Of the B images.
        spaces: The L spaces, most editable first.
    """

    means: Tensor
    segments: Segments
    spaces: tuple[str, ...]

    @classmethod
    def of(cls, error: Mapping[str, Tensor], segments: Segments, spaces: Sequence[str]) -> SegmentErrors:
        """Average error maps over segments; arguments and errors as for :func:`allocate`."""
        _check_maps(error, segments, spaces)
        index, sizes = dense_ids(segments.ids.to(error[spaces[0]].device))
        means = torch.stack([segment_mean(error[space].float(), index, sizes.shape[1]) for space in spaces])
        return cls(means, segments, tuple(spaces))

    def relieved(self) -> SegmentErrors:
        """The errors once the worst segments have left the first space, which has to be a style space.

        Errors are of inversions of the whole image into one space, where all segments share the styles: far worse ones
        pull these away from what a large segment needs. So the error of a segment that covers at least
        ``LARGE_AREA`` of the image is divided by ``RELIEF`` if another one has more than that many times its error.
        At every threshold for all that then lets it stay, the other one leaves. :class:`saminv.optim.Escalate` looks
        at such segments again after the far worse ones have left.
        """
        sizes = dense_ids(self.segments.ids.to(self.means.device))[1]
        first = self.means[0]
        worst = first.amax(dim=1, keepdim=True)
        large = sizes >= LARGE_AREA * self.segments.ids[0].numel()
        spared = torch.where(large & (worst > RELIEF * first), first / RELIEF, first)
        return replace(self, means=torch.cat([spared[None], self.means[1:]]))

    def levels(self, tau: float | Tensor | Mapping[str, float]) -> Tensor:
        """Position in ``spaces`` of each segment `[B, S]` under a threshold as for :func:`allocate`."""
        passes = self.means <= thresholds(tau, self.segments).to(self.means)
        passes[-1] = True
        # argmax of a comparison returns the first place where it holds.
        return passes.to(torch.int8).argmax(0)

    def allocate(self, tau: float | Tensor | Mapping[str, float], formulation: Formulation = "paper") -> Regions:
        """See :func:`allocate`."""
        return self.regions(self.levels(tau), formulation)

    def regions(self, levels: Tensor, formulation: Formulation = "paper") -> Regions:
        """The regions in which segments lie in the spaces at positions ``levels`` `[B, S]`."""
        index = dense_ids(self.segments.ids.to(levels.device))[0]
        return Regions(paint(levels, index), self.spaces, formulation)

    def select(self, rows: Tensor) -> SegmentErrors:
        """The errors of the images ``rows`` `[N]`."""
        segments = replace(self.segments, ids=self.segments.ids[rows])
        count = dense_ids(segments.ids)[1].shape[1]
        return replace(self, means=self.means[:, rows, :count], segments=segments)

    def steps(self, row: int) -> list[float]:
        """The thresholds, falling, at which one image's allocation changes; every allocation has one.

        The first is the least that leaves all segments in the most editable space that any threshold gives them.
        """
        here = self.select(torch.tensor([row]))
        values = torch.unique(here.means[:-1]).flip(0).tolist()
        found: list[float] = []
        last = None
        for tau in [*values, 0.0]:
            levels = here.levels(tau)
            if last is not None and torch.equal(levels, last):
                # The same allocation down to here.
                found[-1] = tau
                continue
            found.append(tau)
            last = levels
        return found


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
        raise InputError(f"tau must be a number >= 0 (0.1 to 0.45 are usual), not {tau.tolist()!r}.")
    if tuple(tau.shape) not in {(), (1,), (batch,), (batch, count), (1, count)}:
        raise InputError(
            f"There are {' x '.join(map(str, tau.shape))} values of tau for {batch} images of up to {count} segments; "
            "give one number, one for each image, or one for each segment."
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

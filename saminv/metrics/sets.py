"""Metrics of sets: one number for many pictures, gathered batch by batch."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from .._errors import InputError
from .._registry import Registry
from .features import AbstractExtractor, get_extractor
from .identity import IdentitySimilarity
from .statistics import FeatureStatistics

Self = TypeVar("Self", bound="AbstractSetMetric")
Distance = TypeVar("Distance", bound="AbstractFeatureDistance")

SUBSETS = 100
SUBSET_SIZE = 1000
DEGREE = 3
ROWS = 2048
"""Rows of a kernel matrix that are held at a time."""


class AbstractSetMetric(ABC):
    """One number for a set of pictures: :meth:`update` as often as there are batches, then :meth:`compute`.

    Attributes:
        name: Name in the registry.
        higher_is_better: Whether a larger value means a better set.
    """

    name: str
    higher_is_better: bool = False

    @abstractmethod
    def update(self, pictures: Tensor) -> None:
        """Add pictures `[B, 3, H, W]` in [-1, 1]."""

    @abstractmethod
    def compute(self) -> float:
        """The value for all pictures so far."""

    @abstractmethod
    def fresh(self: Self) -> Self:
        """A new metric with the same settings that has seen no pictures."""

    def merge(self: Self, other: Self) -> Self:
        """A new metric that has seen the pictures of this one and then of the other, such as that of another process.

        Raises:
            InputError: If the metrics are of different kinds, networks or references.
        """
        if type(self) is not type(other):
            raise InputError(f"The metrics {self.name!r} and {other.name!r} cannot be merged.")
        merged = copy(self)
        merged._merge(self, other)
        return merged

    @abstractmethod
    def _merge(self: Self, first: Self, second: Self) -> None:
        """Take what both have seen; this is a copy of the first."""


class AbstractFeatureDistance(AbstractSetMetric):
    """A distance between the feature vectors of a set of pictures and those of a reference set.

    Args:
        extractor: Name ("inception", "demo") or extractor, see :mod:`saminv.metrics.features`.
        reference: Statistics of the reference set, if they are known already; else :meth:`update_reference` makes them.
        options: Of the extractor, where it is named: ``weights=``, ``resizing=``.

    Attributes:
        name: That of the class, with the extractor's where it is not "inception", and the resizing's where it is not
            "clean": "fid", "fid-demo", "fid-tensorflow".
        pictures: Statistics of the pictures.
        reference: Statistics of the reference set.
        given: Whether the reference was given as statistics.

    Raises:
        InputError: If the extractor is unknown, or the reference is of another one or lacks the vectors.
        WeightsError: If the extractor's weights are neither here nor can be fetched.
    """

    keeps_vectors: bool = False

    def __init__(
        self,
        extractor: str | AbstractExtractor = "inception",
        reference: FeatureStatistics | None = None,
        **options: Any,
    ) -> None:
        self.extractor = get_extractor(extractor, **options)
        usual = {"inception", "clean"}
        said = [word for word in (self.extractor.name, self.extractor.resizing) if word not in usual]
        self.name = "-".join([self.name, *said])
        self.pictures = FeatureStatistics(self.extractor, keep=self.keeps_vectors)
        self.given = reference is not None
        self.reference = FeatureStatistics(self.extractor, keep=self.keeps_vectors) if reference is None else reference
        self.pictures.check_comparable(self.reference)
        if self.keeps_vectors and not self.reference.keeps:
            raise InputError(f"The metric {self.name!r} needs the vectors of the reference; make it with keep=True.")

    @property
    def what(self) -> str:
        """Metric and extractor, as a table's header says it."""
        return f"{self.name} on {self.extractor.what}"

    def update(self, pictures: Tensor) -> None:
        self.pictures.update(pictures)

    def update_reference(self, pictures: Tensor) -> None:
        """Add pictures `[B, 3, H, W]` in [-1, 1] to the reference set.

        Raises:
            InputError: If these are no pictures, or the reference was given as a whole.
        """
        if self.given:
            raise InputError("The reference of this metric was given as statistics; it takes no further pictures.")
        self.reference.update(pictures)

    def fresh(self: Distance) -> Distance:
        new = copy(self)
        new.pictures = FeatureStatistics(self.extractor, keep=self.keeps_vectors)
        if not self.given:
            new.reference = FeatureStatistics(self.extractor, keep=self.keeps_vectors)
        return new

    def _merge(self: Distance, first: Distance, second: Distance) -> None:
        if first.given != second.given:
            raise InputError("One of the metrics was given its reference and the other gathered it; treat both alike.")
        one, other = first.reference, second.reference
        if first.given and not (one.count == other.count and torch.equal(one.mean, other.mean)):
            raise InputError("The metrics have different references; only such with one reference can be merged.")
        self.pictures = first.pictures.merge(second.pictures)
        self.reference = one if first.given else one.merge(other)

    def _check_counts(self, least: int, advice: str) -> None:
        for statistics, what in ((self.pictures, "pictures"), (self.reference, "reference pictures")):
            if statistics.count < least:
                raise InputError(
                    f"The metric {self.name!r} needs at least {least} {what}; there are {statistics.count}. {advice}"
                )


class FID(AbstractFeatureDistance):
    """Fréchet distance between Gaussians fitted to the feature vectors of two sets. At least 0, 0 for equal moments.

    ``|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))``, covariances divided by the number of pictures minus one. The value is
    biased upwards, the more the fewer the pictures: compare only values with equal numbers of pictures. With no more
    pictures than features a covariance is singular, and :meth:`compute` warns.

    On the extractor "inception" (299 x 299, 2,048 features) with ``resizing="clean"`` it is the FID of clean-fid, with
    ``"tensorflow"`` that of torchmetrics and torch-fidelity.

    Reference:
        M. Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017, arXiv:1706.08500, Eq. 6.
    """

    name = "fid"

    def compute(self) -> float:
        """The distance.

        Raises:
            InputError: If there are fewer than two pictures in a set.
        """
        self._check_counts(2, "Add more by update() and update_reference().")
        fewest = min(self.pictures.count, self.reference.count)
        if fewest <= self.extractor.length:
            warnings.warn(
                f"FID of {fewest} pictures on {self.extractor.length} features: a covariance is singular, and the "
                "value compares only with such of as many pictures. KID has no such bias.",
                UserWarning,
                stacklevel=2,
            )
        a, b = self.pictures, self.reference
        return frechet_distance(a.mean, a.covariance(), b.mean, b.covariance())


class KID(AbstractFeatureDistance):
    """Unbiased estimate of the squared maximum mean discrepancy between feature vectors, with a cubic kernel.

    ``k(x, y) = (x . y / D + 1)^3``. The value is the mean of estimates on random subsets, drawn without replacement; it
    may be a little below 0. On the extractor "inception" it is KID, by the rules of :class:`FID`.

    Args:
        extractor: As for :class:`AbstractFeatureDistance`.
        reference: The same; made with ``keep=True``.
        subsets: Number of subsets.
        subset_size: Pictures of each set in a subset. None takes all pictures of both sets at once, one estimate,
            which wastes nothing where pictures are few; the sets may differ in size.
        seed: Of the subsets. The same pictures in the same order give the same value on any device.
        options: Of the extractor.

    Raises:
        InputError: If a number is out of range, and as :class:`AbstractFeatureDistance`.

    Reference:
        M. Bińkowski et al., "Demystifying MMD GANs", 2018, arXiv:1801.01401, section 4.
    """

    name = "kid"
    keeps_vectors = True

    def __init__(
        self,
        extractor: str | AbstractExtractor = "inception",
        reference: FeatureStatistics | None = None,
        subsets: int = SUBSETS,
        subset_size: int | None = SUBSET_SIZE,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if subsets < 1 or (subset_size is not None and subset_size < 2):
            raise InputError(
                f"subsets={subsets} and subset_size={subset_size} given; at least 1 subset of at least 2 pictures is "
                "needed."
            )
        super().__init__(extractor, reference, **options)
        self.subsets, self.subset_size, self.seed = subsets, subset_size, seed

    def compute(self) -> float:
        """Mean of :meth:`estimates`.

        Raises:
            InputError: If a set has fewer pictures than a subset.
        """
        return float(self.estimates().mean())

    def estimates(self) -> Tensor:
        """The estimate on each subset `[subsets]`, float64. They share pictures: their spread is no standard error.

        Raises:
            InputError: If a set has fewer pictures than a subset.
        """
        if self.subset_size is None:
            self._check_counts(2, "Add more by update() and update_reference().")
        else:
            self._check_counts(
                self.subset_size, "Add more, or take smaller subsets (subset_size=...), or all at once (None)."
            )
        device = next(self.extractor.parameters()).device
        pairs = [statistics.vectors().to(device).double() for statistics in (self.pictures, self.reference)]
        size = self.subset_size
        if size is None or all(len(vectors) == size for vectors in pairs):
            return kernel_distance(*pairs).cpu().repeat(1 if size is None else self.subsets)
        source = torch.Generator().manual_seed(self.seed)
        found = []
        for _ in range(self.subsets):
            chosen = (v[torch.randperm(len(v), generator=source)[:size].to(device)] for v in pairs)
            found.append(kernel_distance(*chosen))
        return torch.stack(found).cpu()


class IdentityConsistency(AbstractSetMetric):
    """Mean likeness of the later frames of a sequence to its first: how steady a person's identity stays.

    The mean over frames 1 to N of the cosine between their identities and that of frame 0. In [-1, 1], 1 for frames
    that all show one identity; on ArcFace at 112 x 112. A video itself has less than 1: judge an inversion beside the
    consistency of its source. Pictures are the frames of one sequence in order.

    Args:
        identity: The metric that embeds faces, or its weights, as for
            :class:`saminv.metrics.identity.IdentitySimilarity`.
        options: Of that metric.

    Reference:
        Yao et al., 2022, arXiv:2202.02183, Eq. 9.
    """

    name = "identity-consistency"
    higher_is_better = True

    def __init__(self, identity: IdentitySimilarity | Any = None, **options: Any) -> None:
        if isinstance(identity, IdentitySimilarity):
            if options:
                raise InputError(
                    f"The metric of identity is built already; it takes no options ({', '.join(options)})."
                )
            self.identity = identity
        else:
            self.identity = IdentitySimilarity(identity, **options)
        self._embeddings: list[Tensor] = []

    @torch.no_grad()
    def update(self, pictures: Tensor) -> None:
        """Add frames `[B, 3, H, W]` in [-1, 1] that follow those before."""
        device = next(self.identity.parameters()).device
        self._embeddings.append(self.identity.embed(pictures.to(device)).cpu().double())

    def compute(self) -> float:
        """The consistency.

        Raises:
            InputError: If there are fewer than two frames.
        """
        count = sum(map(len, self._embeddings))
        if count < 2:
            raise InputError(f"The consistency of a sequence needs at least 2 frames; there are {count}.")
        first, *_ = frames = torch.cat(self._embeddings)
        return float((frames[1:] @ first).mean())

    def fresh(self) -> IdentityConsistency:
        return IdentityConsistency(self.identity)

    def _merge(self, first: IdentityConsistency, second: IdentityConsistency) -> None:
        self._embeddings = [*first._embeddings, *second._embeddings]


def frechet_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """Squared Fréchet distance between two Gaussians with means `[D]` and covariances `[D, D]`; computed in float64.

    Raises:
        InputError: If the shapes differ.
    """
    if mean_a.shape != mean_b.shape or covariance_a.shape != covariance_b.shape:
        raise InputError(f"The Gaussians have {mean_a.shape[-1]} and {mean_b.shape[-1]} dimensions; they must agree.")
    gap = (mean_a.double() - mean_b.double()).square().sum()
    traces = covariance_a.double().trace() + covariance_b.double().trace()
    # The trace of the root of a product of covariances is the nuclear norm of the product of their roots, whose small
    # singular values are exact to rounding, where the eigenvalues of the product would lose half of the digits.
    cross = torch.linalg.svdvals(_root(covariance_a).t() @ _root(covariance_b)).sum()
    return max(float(gap + traces - 2 * cross), 0.0)


def _root(covariance: Tensor) -> Tensor:
    """``R`` `[D, rank]` with ``R @ R.T`` the covariance."""
    values, vectors = torch.linalg.eigh(covariance.double())
    present = values > values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    return vectors[:, present] * values[present].sqrt()


def kernel_distance(a: Tensor, b: Tensor) -> Tensor:
    """Unbiased squared maximum mean discrepancy `[]` between vectors `[N, D]` and `[M, D]` under the cubic kernel."""
    return _within(a) + _within(b) - 2 * _kernel_sum(a, b) / (len(a) * len(b))


def _within(vectors: Tensor) -> Tensor:
    """Mean of the kernel over pairs of different vectors."""
    count = len(vectors)
    same = (vectors.square().sum(dim=1) / vectors.shape[1] + 1).pow(DEGREE).sum()
    return (_kernel_sum(vectors, vectors) - same) / (count * (count - 1))


def _kernel_sum(a: Tensor, b: Tensor) -> Tensor:
    total = a.new_zeros(())
    for rows in a.split(ROWS):
        total = total + (rows @ b.t() / a.shape[1] + 1).pow(DEGREE).sum()
    return total


SET_METRICS: Registry[Callable[..., AbstractSetMetric]] = Registry("metric of sets")
SET_METRICS.add("fid", FID)
SET_METRICS.add("kid", KID)
SET_METRICS.add("fid-demo", partial(FID, "demo"))
SET_METRICS.add("kid-demo", partial(KID, "demo"))
SET_METRICS.add("identity-consistency", IdentityConsistency)


def get_set_metric(name: str | AbstractSetMetric, **options: Any) -> AbstractSetMetric:
    """Build the metric of sets called ``name``; one that is built already is returned as it is.

    Raises:
        InputError: If the name is unknown, or options are given with a metric that is built already.
        WeightsError: If it needs weights that are neither here nor can be fetched.
    """
    if isinstance(name, AbstractSetMetric):
        if options:
            raise InputError(f"The metric {name.name!r} is built already; it takes no options ({', '.join(options)}).")
        return name
    return SET_METRICS.get(name)(**options)

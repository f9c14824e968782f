"""GANSpace: directions from principal components of w, or of features with their regression on w.

Reference:
    Härkönen et al., 2020, arXiv 2004.02546, sections 2.2 and 2.3, Eq. 1 to 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from .._errors import InputError
from ..generators import AbstractGenerator
from ._samples import RENDERED, check_count, fixed_signs, sample_codes
from .change import LinearDirection, check_slots
from .sets import DirectionSet

COUNT = 20
SAMPLES_OF_W, SAMPLES_OF_FEATURES = 10_000, 2_000
LARGEST_PART = 2**24
"""Numbers of features that are looked at together."""


@dataclass
class IncrementalPCA:
    """Principal components of data that comes in parts, by singular values of what is known and what is new.

    Exact as long as the data has no more than ``rank`` components; else what lies beyond is dropped part by part.

    Attributes:
        rank: Components that are carried from part to part.
        count: Rows seen.
        mean: Of the rows, `[F]`.
        components: `[K, F]`, orthonormal, the strongest first.
        singular: Singular values of the centred data `[K]`.
        total: Sum of squares of the centred data.

    Reference:
        Ross et al., "Incremental Learning for Robust Visual Tracking", 2008, section 3.1.
    """

    rank: int
    count: int = 0
    mean: Tensor | None = None
    components: Tensor | None = None
    singular: Tensor | None = None
    total: float = 0.0

    def add(self, rows: Tensor) -> None:
        """Take in rows `[N, F]`."""
        fresh = rows.mean(dim=0)
        centred = rows - fresh
        self.total += float(centred.double().square().sum())
        if self.mean is None or self.components is None or self.singular is None:
            stacked, self.mean, self.count = centred, fresh, len(rows)
        else:
            both = self.count + len(rows)
            gap = (self.mean - fresh) * (self.count * len(rows) / both) ** 0.5
            self.total += float(gap.double().square().sum())
            stacked = torch.cat([self.singular[:, None] * self.components, centred, gap[None]])
            self.mean = self.mean + (fresh - self.mean) * (len(rows) / both)
            self.count = both
        # Features are many and rows few, so the small side is decomposed.
        squares, left = torch.linalg.eigh((stacked @ stacked.t()).double())
        kept = min(self.rank, len(stacked), stacked.shape[1])
        squares, left = squares.flip(0)[:kept].clamp_min(0), left.flip(1)[:, :kept]
        # What is left of a direction without variance is noise.
        real = squares > 1e-10 * squares[:1]
        self.singular = squares[real].sqrt().to(rows)
        self.components = (left[:, real].to(rows).t() @ stacked) / self.singular[:, None]

    def coordinates(self, rows: Tensor) -> Tensor:
        """Coordinates `[N, K]` of rows `[N, F]`."""
        assert self.mean is not None and self.components is not None
        return (rows - self.mean) @ self.components.t()

    @property
    def deviation(self) -> Tensor:
        """Standard deviation along each component `[K]`."""
        assert self.singular is not None
        return self.singular / max(1, self.count - 1) ** 0.5

    @property
    def share(self) -> Tensor:
        """Share of the variance that each component explains `[K]`."""
        assert self.singular is not None
        return self.singular.double().square() / max(self.total, 1e-30)


def ganspace_directions(
    generator: AbstractGenerator,
    count: int = COUNT,
    site: str | None = None,
    *,
    samples: int | None = None,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    label: Any = None,
    name: str | None = None,
    progress: bool = False,
) -> DirectionSet:
    """Directions from principal components.

    Without a site, the components of w. With one, the components of the features there, and for each of them the change
    of w that goes along with it by linear regression over the samples: U = argmin Σ ||U x_j - (w_j - mean)||^2, x_j
    being the coordinates of sample j.

    Args:
        generator: Any.
        count: Number of directions; there are no more than samples less one.
        site: Feature site such as "F4", or None for w.
        samples: 10,000 for w and 2,000 for features where None.
        layers: Style slots that the directions change; all where None.
        seed: Of the samples.
        label: Class of a conditional generator.
        name: Of the set; "ganspace" or "ganspace-F4" where None.
        progress: Show a bar where features are looked at.

    Returns:
        Directions "0", "1", ... whose strength 1 is a standard deviation of the component. Values: "variance" (share of
        the variance of w, or of the features), "deviation" (length in w).

    Raises:
        InputError: For a site that is no feature, or impossible numbers.
    """
    slots = list(range(generator.num_styles)) if layers is None else check_slots(layers, generator.num_styles)
    usual = SAMPLES_OF_W if site is None else SAMPLES_OF_FEATURES
    codes = sample_codes(generator, usual if samples is None else samples, seed, label)
    kept = check_count(count, "count", least=1)
    rows, share = _of_w(codes, kept) if site is None else _of_features(generator, codes, site, kept, progress)
    whole = torch.zeros(len(rows), generator.num_styles, generator.style_dim)
    whole[:, slots] = rows.cpu().float()[:, None]
    return DirectionSet(
        name or ("ganspace" if site is None else f"ganspace-{site}"),
        "ganspace",
        generator.fingerprint,
        {str(k): LinearDirection(row) for k, row in enumerate(whole)},
        tuple(slots),
        {"variance": share.tolist(), "deviation": rows.norm(dim=1).tolist()},
        {"site": site, "samples": len(codes), "seed": seed},
    )


def _of_w(codes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Components of w times their deviation `[K, D]`, and their share of the variance `[K]`."""
    variance, vectors = torch.linalg.eigh(torch.cov(codes.double().t()))
    # Along others there is no variance but that of rounding: fewer samples than numbers, or parts that never vary.
    real = int((variance > 1e-10 * variance[-1]).sum())
    kept = variance.flip(0)[: min(count, real)]
    rows = fixed_signs(vectors.flip(1)[:, : len(kept)].t())
    return rows * kept.sqrt()[:, None], kept / variance.sum()


@torch.no_grad()
def _of_features(
    generator: AbstractGenerator, codes: Tensor, site: str, count: int, progress: bool
) -> tuple[Tensor, Tensor]:
    """Changes of w for one deviation of each component of the features at a site `[K, D]`, and shares `[K]`."""
    found = generator.site(site)
    if found.kind != "feature":
        raise InputError(f"{site!r} is no feature; those are: {', '.join(generator.feature_sites)}.")
    size = 1
    for side in found.shape:
        size *= side
    # As many rows at a time as components are carried, so that little is dropped between them.
    part = max(2 * count, min(256, LARGEST_PART // size))
    analysis = IncrementalPCA(2 * count)
    found_there = []
    # Twice: components are known only after all features have been seen.
    with tqdm(total=2 * len(codes), unit="sample", desc=f"features of {site}", disable=not progress) as bar:
        for rows in _features(generator, codes, site, part):
            analysis.add(rows)
            bar.update(len(rows))
        for rows in _features(generator, codes, site, part):
            found_there.append(analysis.coordinates(rows))
            bar.update(len(rows))
    coordinates = torch.cat(found_there)[:, :count].double()
    centred = codes.double() - codes.double().mean(dim=0)
    basis = torch.linalg.lstsq(coordinates.cpu(), centred.cpu()).solution
    rows = basis * analysis.deviation[: len(basis), None].double().cpu()
    return fixed_signs(rows), analysis.share[: len(basis)]


def _features(generator: AbstractGenerator, codes: Tensor, site: str, part: int) -> Iterator[Tensor]:
    """Features of codes at a site, `[part, F]` at a time."""
    for group in codes.split(part):
        chunks = []
        for few in group.split(RENDERED):
            seen = generator.synthesis(few[:, None].expand(-1, generator.num_styles, -1), until=site)
            assert isinstance(seen, dict)
            chunks.append(seen[site].flatten(1).float())
        yield torch.cat(chunks)

"""How far generated pictures are from real ones, as sets: the Fréchet distance of the demo's features, ``fid-demo``.

The usual features need a large file. So a score tells whether a training goes well; it is no FID and cannot be compared
with one.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..generators import AbstractGenerator
from ..metrics.features import AbstractExtractor, DemoFeatures
from ..metrics.sets import frechet_distance
from ..metrics.statistics import FeatureStatistics
from .pictures import Pictures

LABEL = "Fréchet distance of demo-vision features (no FID)"
_BATCH = 32
_LEAST = 2


class DemoScore(nn.Module):
    """Scores a generator against real pictures; see the module.

    Args:
        data: Real pictures; at most ``count`` of them, chosen at random, once for all.
        count: Number of pictures on both sides.
        extractor: Of the features; the demo's if None.

    Raises:
        InputError: If there are fewer than two pictures.
    """

    def __init__(self, data: Pictures, count: int, extractor: AbstractExtractor | None = None) -> None:
        super().__init__()
        if min(len(data), count) < _LEAST:
            raise InputError(
                f"A score needs at least {_LEAST} pictures; there are {len(data)}, and {count} are asked for."
            )
        self.extractor = DemoFeatures() if extractor is None else extractor
        self.count = count
        self._data = data
        self._chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:count]
        self._real: FeatureStatistics | None = None

    @torch.no_grad()
    def forward(self, generator: AbstractGenerator) -> float:
        """The score of a generator, lower is better; pictures of the same noise each time."""
        if self._real is None:
            self._real = self._statistics(self._data.batch(part.tolist()) for part in self._chosen.split(_BATCH))
        z = generator.sample_z(self.count, seed=0)
        made = self._statistics(_rendered(generator, part) for part in z.split(_BATCH))
        return frechet_distance(self._real.mean, self._real.covariance(), made.mean, made.covariance())

    def _statistics(self, batches: Iterable[Tensor]) -> FeatureStatistics:
        found = FeatureStatistics(self.extractor)
        for batch in batches:
            found.update(batch)
        return found


def _rendered(generator: AbstractGenerator, z: Tensor) -> Tensor:
    image = generator.synthesis(generator.mapping(z))
    assert isinstance(image, Tensor)
    return image

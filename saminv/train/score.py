"""How far generated pictures are from real ones, as sets: the Fréchet distance of the demo's features, where they are.

The usual features need a large file. So a score tells whether a training goes well; it is no FID and cannot be compared
with one. It is not ``fid-demo`` either, whose means over whole pictures do not tell where things are: these went up
while samples of a young generator became roads, hills and cars.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import InputError
from ..generators import AbstractGenerator
from ..metrics.features import DEMO_SIDE, AbstractExtractor
from ..metrics.sets import frechet_distance
from ..metrics.statistics import FeatureStatistics
from ..metrics.vision import FEATURE_EPS, VisionNet, load_vision
from ..ops.lpips_head import unit_length
from .pictures import Pictures

LABEL = "Fréchet distance of demo-vision features on a grid (no FID)"
GRID = 4
SCALE = 10.0
"""Brings scores to the size of usual ones."""
_BATCH = 32
_LEAST = 2


class PlacedFeatures(AbstractExtractor):
    """Features of the demo's vision network where they are, as a vector `[16 C]`.

    The last features have unit length at each position, as those of LPIPS, since pictures unlike any that the network
    knows have features several times larger. They are averaged over each cell of a 4 x 4 grid.

    Args:
        network: The network to use; the bundled one if None.

    Raises:
        CheckpointError: If the bundled weights are missing or damaged.
    """

    name = "demo-placed"
    side = DEMO_SIDE

    def __init__(self, network: VisionNet | None = None) -> None:
        super().__init__("clean")
        self.network = load_vision() if network is None else network
        self.length = GRID**2 * self.network.config.channels[-1]

    def vectors(self, levels: Tensor) -> Tensor:
        found = self.network.features(levels / 127.5 - 1)[-1]
        return SCALE / GRID * F.adaptive_avg_pool2d(unit_length(found, FEATURE_EPS), GRID).flatten(1)


class DemoScore(nn.Module):
    """Scores a generator against real pictures; see the module.

    Args:
        data: Real pictures; at most ``count`` of them, chosen at random, once for all.
        count: Number of pictures on both sides.
        extractor: Of the features; :class:`PlacedFeatures` if None.

    Raises:
        InputError: If there are fewer than two pictures.
    """

    def __init__(self, data: Pictures, count: int, extractor: AbstractExtractor | None = None) -> None:
        super().__init__()
        if min(len(data), count) < _LEAST:
            raise InputError(
                f"A score needs at least {_LEAST} pictures; there are {len(data)}, and {count} are asked for."
            )
        self.extractor = PlacedFeatures() if extractor is None else extractor
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

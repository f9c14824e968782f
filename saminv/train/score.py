"""How far generated pictures are from real ones, as sets: the Fréchet distance of features, as in FID.

The features are those of the demo's vision network, since the usual ones need a large file. So a score tells whether a
training goes well; it is no FID and cannot be compared with one.

Reference:
    Heusel et al., 2017, arXiv 1706.08500, Eq. 6 (FID).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..generators import AbstractGenerator
from ..metrics.vision import VisionNet, load_vision
from .pictures import Pictures

LABEL = "Fréchet distance of demo-vision features (no FID)"
SCALE = 100.0
"""Factor on the distance, so that values are about as large as those of FID."""
_BATCH = 32
_LEAST = 2


@dataclass(frozen=True)
class FeatureMoments:
    """Mean `[D]` and covariance `[D, D]` of features, float64, and of how many pictures."""

    mean: Tensor
    covariance: Tensor
    count: int


def frechet_distance(one: FeatureMoments, other: FeatureMoments) -> float:
    """Squared Fréchet distance of two normal distributions: 0 for equal ones."""
    root = _root(one.covariance)
    # The eigenvalues of the symmetric product are those of the product whose root the formula asks for.
    middle = torch.linalg.eigvalsh(root @ other.covariance @ root).clamp_min(0).sqrt().sum()
    trace = one.covariance.trace() + other.covariance.trace() - 2 * middle
    return max(0.0, float((one.mean - other.mean).square().sum() + trace))


class DemoScore(nn.Module):
    """Scores a generator against real pictures; see the module.

    Args:
        data: Real pictures; at most ``count`` of them, chosen at random, once for all.
        count: Number of pictures on both sides.
        network: The vision network; the bundled one if None.

    Raises:
        InputError: If there are fewer than two pictures.
    """

    def __init__(self, data: Pictures, count: int, network: VisionNet | None = None) -> None:
        super().__init__()
        if min(len(data), count) < _LEAST:
            raise InputError(
                f"A score needs at least {_LEAST} pictures; there are {len(data)}, and {count} are asked for."
            )
        self.network = load_vision() if network is None else network
        self.count = count
        self._data = data
        self._chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:count]
        self._real: FeatureMoments | None = None

    @torch.no_grad()
    def forward(self, generator: AbstractGenerator) -> float:
        """The score of a generator, lower is better; pictures of the same noise each time."""
        if self._real is None:
            self._real = self.moments(self._data.batch(part.tolist()) for part in self._chosen.split(_BATCH))
        z = generator.sample_z(self.count, seed=0)
        made = self.moments(_rendered(generator, part) for part in z.split(_BATCH))
        return SCALE * frechet_distance(self._real, made)

    @torch.no_grad()
    def moments(self, batches: Iterable[Tensor]) -> FeatureMoments:
        """Moments of the features of images `[B, 3, H, W]`, which are rounded as pictures are."""
        device = self.network.perceptual_scale.device
        rows = []
        for batch in batches:
            levels = ((batch.to(device).clamp(-1, 1) + 1) * 127.5).round()
            rows.append(self.network.features(levels / 127.5 - 1)[-1].mean(dim=(2, 3)).double().cpu())
        features = torch.cat(rows)
        return FeatureMoments(features.mean(dim=0), torch.cov(features.t()), len(features))


def _rendered(generator: AbstractGenerator, z: Tensor) -> Tensor:
    image = generator.synthesis(generator.mapping(z))
    assert isinstance(image, Tensor)
    return image


def _root(matrix: Tensor) -> Tensor:
    """Square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.t()

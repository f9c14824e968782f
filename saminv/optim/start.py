"""Where a solve starts without an encoder: the nearest of random samples."""

from __future__ import annotations

import torch
from torch import Tensor

from ..generators._base import AbstractGenerator
from ..images import area_resize
from ..metrics._base import AbstractMetric

SAMPLES = 128
FINALISTS = 6
THUMBNAIL = 32


@torch.no_grad()
def nearest_styles(
    generator: AbstractGenerator,
    target: Tensor,
    metric: AbstractMetric,
    seed: int = 0,
    label: Tensor | int | None = None,
    samples: int = SAMPLES,
) -> tuple[Tensor, Tensor]:
    """Styles of the random sample that looks most like each target.

    Samples are compared as small pictures first; the perceptual metric decides among the best of them.

    Args:
        target: `[B, 3, H, W]` in [-1, 1].

    Returns:
        Styles `[B, L, D]`, and how far the nearest small picture is `[B]`, relative to the median distance of a sample
        to its own nearest neighbour: about 1 for pictures the generator could have made.
    """
    styles = generator.mapping(generator.sample_z(samples, seed), label)
    images = torch.cat([_render(generator, part) for part in styles.split(16)])
    thumbnails, aims = _thumbnail(images), _thumbnail(target)
    distance = torch.cdist(aims, thumbnails)
    among = torch.cdist(thumbnails, thumbnails).fill_diagonal_(torch.inf).amin(dim=1).median()
    chosen = []
    for row in range(len(target)):
        finalists = distance[row].topk(min(FINALISTS, samples), largest=False).indices
        prepared = metric.prepare(target[row : row + 1].expand(len(finalists), -1, -1, -1))
        chosen.append(finalists[metric(images[finalists], prepared).argmin()])
    return styles[torch.stack(chosen)], distance.amin(dim=1) / among


def _render(generator: AbstractGenerator, styles: Tensor) -> Tensor:
    image = generator.synthesis(styles)
    assert isinstance(image, Tensor)
    return image.clamp(-1, 1)


def _thumbnail(image: Tensor) -> Tensor:
    return area_resize(image, (THUMBNAIL, THUMBNAIL)).flatten(1)

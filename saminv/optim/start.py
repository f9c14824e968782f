"""Where a solve starts without an encoder: the nearest of random samples."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..generators._base import AbstractGenerator
from ..images import area_resize
from ..metrics._base import AbstractMetric

SAMPLES = 128
FINALISTS = 12
THUMBNAIL = 32


@dataclass(frozen=True)
class Bank:
    """Random samples of a generator.

    Attributes:
        styles: `[N, L, D]`.
        thumbnails: Their pictures, made small and flat `[N, P]`.
        spacing: Median distance of a thumbnail to its nearest neighbour.
    """

    styles: Tensor
    thumbnails: Tensor
    spacing: Tensor


_BANKS: WeakKeyDictionary[AbstractGenerator, dict[tuple, Bank]] = WeakKeyDictionary()


def sample_bank(
    generator: AbstractGenerator, seed: int = 0, label: Tensor | int | None = None, samples: int = SAMPLES
) -> Bank:
    """Random samples with their thumbnails, rendered once per generator, seed and label."""
    named = None if label is None else tuple(torch.as_tensor(label).flatten().tolist())
    key = (seed, named, samples, generator.device, generator.dtype)
    banks = _BANKS.setdefault(generator, {})
    if key not in banks:
        styles = generator.mapping(generator.sample_z(samples, seed), label)
        thumbnails = torch.cat([_thumbnail(_render(generator, part)) for part in styles.split(8)])
        nearest = torch.cdist(thumbnails, thumbnails).fill_diagonal_(torch.inf).amin(dim=1)
        banks[key] = Bank(styles, thumbnails, nearest.median())
    return banks[key]


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

    Samples are compared as small pictures first; the coarse features of the perceptual metric decide among the best
    of them.

    Args:
        target: `[B, 3, H, W]` in [-1, 1].

    Returns:
        Styles `[B, L, D]`, and how far the nearest small picture is `[B]`, relative to the median distance of a sample
        to its own nearest neighbour: about 1 for pictures the generator could have made.
    """
    bank = sample_bank(generator, seed, label, samples)
    distance = _distances(target, bank)
    chosen = []
    for row in range(len(target)):
        finalists = distance[row].topk(min(FINALISTS, samples), largest=False).indices
        images = _render(generator, bank.styles[finalists])
        prepared = metric.prepare(target[row : row + 1].expand(len(finalists), -1, -1, -1))
        chosen.append(finalists[metric.coarse(images, prepared).argmin()])
    return bank.styles[torch.stack(chosen)], distance.amin(dim=1) / bank.spacing


@torch.no_grad()
def domain_distance(
    generator: AbstractGenerator,
    target: Tensor,
    seed: int = 0,
    label: Tensor | int | None = None,
    samples: int = SAMPLES,
) -> Tensor:
    """How far the nearest small picture is `[B]`, as :func:`nearest_styles` says it, without choosing a sample."""
    bank = sample_bank(generator, seed, label, samples)
    return _distances(target, bank).amin(dim=1) / bank.spacing


def _distances(target: Tensor, bank: Bank) -> Tensor:
    """Distances `[B, N]` of targets to the samples, as small pictures."""
    return torch.cdist(_thumbnail(target), bank.thumbnails)


def _render(generator: AbstractGenerator, styles: Tensor) -> Tensor:
    image = generator.synthesis(styles)
    assert isinstance(image, Tensor)
    return image.clamp(-1, 1)


def _thumbnail(image: Tensor) -> Tensor:
    return area_resize(image, (THUMBNAIL, THUMBNAIL)).flatten(1)

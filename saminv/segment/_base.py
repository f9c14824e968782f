"""The interfaces of segmenters and invertibility maps, and arithmetic over segments."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .._errors import InputError
from .._registry import Registry

LARGE_AREA = 0.02
"""Share of the image from which a segment is large."""


@dataclass(frozen=True, eq=False)
class Segments:
    """Segments of a batch of images.

    Attributes:
        ids: `[B, H, W]` int64; pixels of one image with the same id form a segment. Ids are any integers and need not
            be connected areas.
        names: Class names by id; may be empty.
    """

    ids: Tensor
    names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.ids.dtype != torch.int64 or self.ids.dim() != 3 or self.ids.numel() == 0:
            kind = f"{str(self.ids.dtype).removeprefix('torch.')} {list(self.ids.shape)}"
            raise InputError(f"Segment ids must be int64 [B, H, W] and not empty, not {kind}.")

    def count(self) -> Tensor:
        """Number of segments of each image, int64 `[B]`."""
        return torch.tensor([torch.unique(row).numel() for row in self.ids], device=self.ids.device)


class AbstractSegmenter(ABC):
    """Cuts images into segments."""

    @abstractmethod
    def __call__(self, image: Tensor) -> Segments:
        """Return the segments of images `[B, 3, H, W]` in [-1, 1]."""


class AbstractInvertibility(ABC):
    """Says how badly each part of an image would be inverted in each latent space."""

    @abstractmethod
    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Return the expected perceptual error by space, each `[B, 1, H, W]` >= 0, of images `[B, 3, H, W]`."""


SEGMENTERS: Registry[type[AbstractSegmenter]] = Registry("segmenter")
register_segmenter = SEGMENTERS.register


@register_segmenter("none")
@dataclass(frozen=True)
class WholeImage(AbstractSegmenter):
    """One segment per image, so that the whole image goes into one space."""

    def __call__(self, image: Tensor) -> Segments:
        check_image(image)
        return Segments(torch.zeros(image.shape[0], *image.shape[2:], dtype=torch.int64, device=image.device))


def check_image(image: Tensor) -> None:
    """Raise ``InputError`` unless ``image`` is a finite float tensor `[B, 3, H, W]` with pixels."""
    if not isinstance(image, Tensor) or not image.is_floating_point():
        kind = str(image.dtype) if isinstance(image, Tensor) else type(image).__name__
        raise InputError(f"A segmenter needs a float tensor [B, 3, H, W] in [-1, 1], not {kind}.")
    if image.dim() != 4 or image.shape[1] != 3 or image.numel() == 0:
        raise InputError(f"A segmenter needs images [B, 3, H, W], not {list(image.shape)}.")
    if not bool(image.isfinite().all()):
        raise InputError("The image has pixels that are infinite or not a number; replace them first.")


def dense_ids(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Count the segments of each image from 0.

    Args:
        ids: `[B, H, W]` int64, any integers.

    Returns:
        The index of each pixel's segment, `[B, H, W]` int64 in [0, S), ascending with the ids, and the number of pixels
        of each segment, `[B, S]` int64. S is the largest number of segments of an image; sizes are 0 where an image has
        fewer.
    """
    rows = [torch.unique(row, return_inverse=True, return_counts=True) for row in ids]
    index = torch.stack([inverse for _, inverse, _ in rows])
    return index, torch.nn.utils.rnn.pad_sequence([counts for _, _, counts in rows], batch_first=True)


def segment_mean(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Mean of ``values`` `[B, 1, H, W]` over each segment of ``index`` `[B, H, W]`, `[B, count]`.

    Sums are float64, so that large segments lose nothing and the order of pixels does not matter; the means have the
    dtype of ``values``. A segment without pixels has mean 0.
    """
    flat = index.flatten(1)
    sums = values.new_zeros(len(flat), count, dtype=torch.float64).scatter_add(1, flat, values.flatten(1).double())
    ones = torch.ones_like(flat, dtype=torch.float64)
    sizes = torch.zeros_like(sums).scatter_add(1, flat, ones)
    return (sums / sizes.clamp_min(1)).to(values.dtype)


def paint(values: Tensor, index: Tensor) -> Tensor:
    """Give each pixel its segment's value: ``values`` `[B, S]` and ``index`` `[B, H, W]` give `[B, H, W]`."""
    return values.gather(1, index.flatten(1)).view(index.shape)


def merge_small(ids: Tensor, min_pixels: int, *, connected: bool = False) -> Tensor:
    """Merge each segment of fewer than ``min_pixels`` pixels into the neighbour that it shares most border with.

    The smallest segment goes first, and sizes grow with every merge. A segment without neighbours stays.

    Args:
        ids: `[B, H, W]` int64.
        min_pixels: Segments of at least this many pixels stay.
        connected: Judge each connected part of a segment (pixels that share an edge) by itself.

    Returns:
        `[B, H, W]` int64 with ids that were there before.
    """
    merged = [_merge_image(row, min_pixels, connected) for row in ids.cpu().numpy()]
    return torch.from_numpy(np.stack(merged)).to(ids.device)


def clean(ids: Tensor, *, min_fraction: float, min_island: float) -> Tensor:
    """Give specks, and then whole segments that are too small, to the neighbour that they share most border with.

    Args:
        ids: `[B, H, W]` int64.
        min_fraction: Smallest segment as a part of the image's area.
        min_island: Smallest connected part of a segment, likewise.

    Returns:
        `[B, H, W]` int64 with ids that were there before.
    """
    area = ids.shape[1] * ids.shape[2]
    ids = merge_small(ids, round(min_island * area), connected=True)
    return merge_small(ids, round(min_fraction * area))


def _merge_image(ids: np.ndarray, min_pixels: int, connected: bool) -> np.ndarray:
    parts = _connected_parts(ids) if connected else ids
    _, first, index, counts = np.unique(parts, return_index=True, return_inverse=True, return_counts=True)
    index = index.reshape(ids.shape)
    owner = ids.reshape(-1)[first]
    target = np.arange(len(counts))
    # A part that was merged away may be another one's target only if that one was merged earlier.
    for small, into in reversed(_merges(counts.tolist(), _borders(index), min_pixels)):
        target[small] = target[into]
    return owner[target[index]]


def _merges(counts: list[int], borders: dict[int, Counter[int]], min_pixels: int) -> list[tuple[int, int]]:
    """The merges (from, into) in order, the smallest part first; ``borders`` is used up."""
    sizes, merges = dict(enumerate(counts)), []
    queue = [(size, part) for part, size in sizes.items() if size < min_pixels]
    heapq.heapify(queue)
    while queue:
        size, small = heapq.heappop(queue)
        if sizes.get(small) != size or not borders[small]:
            continue
        into = max(borders[small], key=lambda other: (borders[small][other], sizes[other], -other))
        _merge(small, into, sizes, borders)
        merges.append((small, into))
        if sizes[into] < min_pixels:
            heapq.heappush(queue, (sizes[into], into))
    return merges


def _merge(small: int, into: int, sizes: dict[int, int], borders: dict[int, Counter[int]]) -> None:
    """Move a part's pixels and borders over to a neighbour."""
    sizes[into] += sizes.pop(small)
    for other, length in borders.pop(small).items():
        del borders[other][small]
        if other != into:
            borders[other][into] += length
            borders[into][other] += length


def _connected_parts(ids: np.ndarray) -> np.ndarray:
    """Number the connected parts of all segments of one image `[H, W]`."""
    from scipy import ndimage

    _, index = np.unique(ids, return_inverse=True)
    index = index.reshape(ids.shape) + 1
    parts, total = np.zeros_like(index), 0
    for segment, box in enumerate(ndimage.find_objects(index), start=1):
        inside = index[box] == segment
        labels, found = ndimage.label(inside)
        parts[box][inside] = labels[inside] + total
        total += found
    return parts


def _borders(index: np.ndarray) -> dict[int, Counter[int]]:
    """For each part of `[H, W]`, the number of pixel edges that it shares with each neighbour."""
    across = np.stack([index[:, :-1].ravel(), index[:, 1:].ravel()])
    down = np.stack([index[:-1].ravel(), index[1:].ravel()])
    pairs = np.concatenate([across, down], axis=1)
    pairs = np.sort(pairs[:, pairs[0] != pairs[1]], axis=0)
    borders: dict[int, Counter[int]] = {part: Counter() for part in range(int(index.max()) + 1)}
    for (a, b), length in zip(*(array.tolist() for array in _count_columns(pairs)), strict=True):
        borders[a][b] = borders[b][a] = length
    return borders


def _count_columns(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unique, counts = np.unique(pairs, axis=1, return_counts=True)
    return unique.T, counts

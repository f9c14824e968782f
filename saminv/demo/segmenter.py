"""The demo's segmenter: the objects of a car scene, and each stranger by itself, as the vision network sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .._errors import InputError
from ..metrics.vision import VisionNet, load_vision
from ..segment import AbstractSegmenter, Segments, merge_small
from ..segment._base import check_image
from .scenes import CAR_SEGMENTS, SEGMENT_INDEX, SEGMENT_NAMES, STRANGER_SEGMENTS

CAR = len(SEGMENT_NAMES)
"""Id of the whole car; smaller ids are positions in ``SEGMENT_NAMES``, larger ones belong to further strangers."""
SIDE = 128
"""Shorter side at which the network looks at pictures: the size that it was trained on."""


@dataclass(frozen=True, eq=False)
class DemoSegmenter(AbstractSegmenter):
    """Cuts car scenes into sky, sun, hills, ground, road, shadow, the car, and one segment for each stranger.

    Scenery and the car are one segment each, in one piece or not. Strangers of a kind that lie apart become segments of
    their own, larger ones first; drops of rain and other parts close to each other stay together. Other pictures than
    car scenes get some segments too, but their names mean nothing.

    Attributes:
        parts: Keep body, cabin, windows, wheels and lights apart instead of joining them to one car.
        min_fraction: Smallest segment as a part of the image's area; smaller ones go to a neighbour.
        speck: Smallest connected part of a segment, likewise.
        reach: Parts of a stranger closer than this, as a part of the shorter side, belong together.
        network: A vision network for :data:`SEGMENT_NAMES`; the bundled one if None.

    Raises:
        InputError: If a setting is out of range or the network has other classes.
        CheckpointError: If the bundled weights are missing or damaged.
    """

    parts: bool = False
    min_fraction: float = 0.0012
    speck: float = 0.0004
    reach: float = 0.045
    network: VisionNet | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.min_fraction < 1 and 0 <= self.speck < 1 and 0 <= self.reach < 1):
            raise InputError(f"min_fraction, speck and reach of the demo's segmenter must lie in [0, 1); got {self}.")
        if self.network is None:
            object.__setattr__(self, "network", load_vision())
        assert self.network is not None
        if self.network.config.num_segments != len(SEGMENT_NAMES):
            raise InputError(
                f"The network knows {self.network.config.num_segments} segment classes; the demo's scenes have "
                f"{len(SEGMENT_NAMES)}: {', '.join(SEGMENT_NAMES)}."
            )

    def __call__(self, image: Tensor) -> Segments:
        check_image(image)
        ids = self._predict(image)
        if not self.parts:
            ids = torch.where(torch.isin(ids, torch.tensor(CAR_SEGMENTS)), CAR, ids)
        area, shorter = ids[0].numel(), min(ids.shape[1:])
        ids = merge_small(ids, round(self.speck * area), connected=True)
        radius = round(self.reach * shorter / 2)
        ids = torch.stack([torch.from_numpy(_separate(row.numpy(), radius)) for row in ids])
        ids = merge_small(ids, round(self.min_fraction * area))
        return Segments(ids.to(image.device), segment_names(ids))

    @torch.no_grad()
    def _predict(self, image: Tensor) -> Tensor:
        """The most probable class of each pixel, `[B, H, W]` on the CPU."""
        assert self.network is not None
        size = image.shape[-2:]
        seen = image.detach().to(self.network.perceptual_scale).clamp(-1, 1)
        if min(size) != SIDE:
            scaled = [max(1, round(side * SIDE / min(size))) for side in size]
            seen = F.interpolate(seen, size=scaled, mode="bilinear", align_corners=False, antialias=True)
        chances = self.network.segment_logits(seen).softmax(dim=1)
        # A mean over neighbours: ragged borders between near-equal chances become straight.
        chances = F.avg_pool2d(chances, 3, stride=1, padding=1, count_include_pad=False)
        if min(size) != SIDE:
            chances = F.interpolate(chances, size=size, mode="bilinear", align_corners=False)
        return chances.argmax(dim=1).cpu()


def segment_names(ids: Tensor) -> Mapping[int, str]:
    """Names of the ids that :class:`DemoSegmenter` gives, for those in ``ids``."""
    return {label: _name(label) for label in torch.unique(ids).tolist()}


def _name(label: int) -> str:
    if label < CAR:
        return SEGMENT_NAMES[label]
    return "car" if label == CAR else STRANGER_SEGMENTS[(label - CAR - 1) % len(STRANGER_SEGMENTS)]


def _separate(ids: np.ndarray, radius: int) -> np.ndarray:
    """Give the strangers in ids `[H, W]` that lie more than twice ``radius`` pixels apart ids of their own."""
    from scipy import ndimage

    result = ids.copy()
    for kind, name in enumerate(STRANGER_SEGMENTS):
        inside = ids == SEGMENT_INDEX[name]
        # Grown to a square around each pixel, so that parts within reach of each other touch.
        grown = ndimage.maximum_filter(inside, size=2 * radius + 1)
        parts, _ = ndimage.label(grown, structure=np.ones((3, 3)))
        sizes = np.bincount(parts[inside], minlength=2)
        # The largest part keeps the kind's id. Part 0 is the background, of which nothing is inside.
        for rank, part in enumerate(np.argsort(-sizes[1:], kind="stable")[1:] + 1):
            result[inside & (parts == part)] = CAR + 1 + rank * len(STRANGER_SEGMENTS) + kind
    return result

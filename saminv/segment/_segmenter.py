"""What segmenters by a network share: settings, how the network sees an image, and ids from its answers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import InputError, MissingExtraError
from ..weights.published import Weights
from ._base import AbstractSegmenter, Segments, check_image, clean
from .classes import Merging

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LONGEST = 2.5
"""The longer side that a network sees is at most this many times ``size``, whatever the picture's shape."""
SMALLEST = 32


@dataclass(frozen=True, eq=False)
class AbstractNetworkSegmenter(AbstractSegmenter):
    """Segments of named classes by a trained network.

    The network moves to the device of the image. Images of a batch are looked at one by one, so that none depends on
    the others.

    Attributes:
        weights: A file, a folder that holds it, or a state dict; if None, the file is looked for in the folder of
            :func:`saminv.weights.weights_folder`, else fetched into it where a checksum is published.
        merging: Which classes count as one, as a :class:`~saminv.segment.classes.Merging` or class names by new name;
            None merges nothing.
        min_fraction: Smallest segment as a part of the image's area; smaller ones go to a neighbour.
        min_island: Smallest connected part of a segment, likewise.
        size: Shorter side, in pixels, at which the network looks at the image.

    Raises:
        InputError: If a setting is out of range, or ``merging`` names an unknown class.
        MissingExtraError: If a package that the network needs is not installed.
        WeightsError: If the weights are not on this machine and could not be fetched; says where to put them.
        CheckpointError: If the weights are damaged or those of another network.
    """

    weights: Weights = field(default=None, repr=False)
    merging: Merging | Mapping[str, Sequence[str]] | None = None
    min_fraction: float = 0.002
    min_island: float = 0.0004
    size: int = 520
    names: tuple[str, ...] = field(init=False, repr=False)
    table: tuple[int, ...] = field(init=False, repr=False)
    network: Any = field(init=False, repr=False)

    classes: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        self._check()
        object.__setattr__(self, "merging", Merging.of(self.merging))
        names, table = Merging.of(self.merging).resolve(self._classes())
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "network", self._load())

    def __call__(self, image: Tensor) -> Segments:
        check_image(image)
        with torch.no_grad():
            ids = torch.stack([self._segment(row) for row in image.detach().float().clamp(-1, 1)])
        ids = clean(ids, min_fraction=self.min_fraction, min_island=self.min_island)
        return Segments(ids, {label: self.names[label % len(self.names)] for label in torch.unique(ids).tolist()})

    @abstractmethod
    def _load(self) -> Any:
        """Return the network with its weights."""

    @abstractmethod
    def _segment(self, image: Tensor) -> Tensor:
        """Return ids int64 `[H, W]` of one image `[3, H, W]`; an id modulo the number of names is a name's index."""

    def _classes(self) -> tuple[str, ...]:
        return self.classes

    def _check(self) -> None:
        if not (0 <= self.min_fraction < 1 and 0 <= self.min_island < 1):
            raise InputError(f"min_fraction and min_island must lie in [0, 1); got {self}.")
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < SMALLEST:
            raise InputError(f"size must be a whole number of at least {SMALLEST} pixels, not {self.size!r}.")


@dataclass(frozen=True, eq=False)
class AbstractClassSegmenter(AbstractNetworkSegmenter):
    """One segment per class: each pixel belongs to the class that the network finds most probable."""

    network: nn.Module = field(init=False, repr=False)

    def _segment(self, image: Tensor) -> Tensor:
        seen = normalised(resized(image[None], self._seen_size(*image.shape[1:])))
        logits = self._logits(self.network.to(image.device), seen)
        best = resized(logits, image.shape[1:]).argmax(dim=1)[0]
        return torch.tensor(self.table, device=image.device)[best]

    @abstractmethod
    def _logits(self, network: nn.Module, seen: Tensor) -> Tensor:
        """Return logits `[1, classes, h, w]` of one normalised image `[1, 3, H, W]`."""

    def _seen_size(self, height: int, width: int) -> tuple[int, int]:
        """Sides at which the network looks, multiples of 8, which is what its features divide the image by."""
        scale = min(self.size / min(height, width), LONGEST * self.size / max(height, width))
        return max(SMALLEST, 8 * round(height * scale / 8)), max(SMALLEST, 8 * round(width * scale / 8))


def resized(image: Tensor, size: Sequence[int]) -> Tensor:
    """``image`` `[B, C, H, W]` at another size, bilinearly, smoothed where it shrinks."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return F.interpolate(image, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)


def normalised(image: Tensor) -> Tensor:
    """Bring ``image`` `[B, 3, H, W]` from [-1, 1] to the mean and deviation of ImageNet."""
    mean, std = (torch.tensor(values, device=image.device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((image + 1) / 2 - mean) / std


def torchvision_package() -> Any:
    """Return torchvision, with its models.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import torchvision.models.detection
        import torchvision.models.segmentation
    except ImportError as error:
        raise MissingExtraError(
            'This segmenter needs torchvision: pip install "saminv[segment]", with the torchvision that belongs to '
            "the installed torch."
        ) from error
    return torchvision

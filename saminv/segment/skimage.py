"""Segmenters of scikit-image, which need no training: felzenszwalb and slic."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import InputError, MissingExtraError
from ._base import AbstractSegmenter, Segments, check_image, register_segmenter


class _PerImage(AbstractSegmenter):
    """Runs a segmenter of scikit-image on each image of a batch."""

    def __call__(self, image: Tensor) -> Segments:
        check_image(image)
        skimage = _scikit_image()
        pixels = ((image.detach().double().cpu() + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).numpy()
        ids = np.stack([self._segment(skimage, np.ascontiguousarray(row)) for row in pixels])
        return Segments(torch.from_numpy(ids.astype(np.int64)).to(image.device))

    @abstractmethod
    def _segment(self, skimage: Any, pixels: np.ndarray) -> np.ndarray:
        """Return ids `[H, W]` of one image `[H, W, 3]` in [0, 1]."""


@register_segmenter("felzenszwalb")
@dataclass(frozen=True)
class Felzenszwalb(_PerImage):
    """Graph-based segments that follow colour edges; sizes differ widely, as those of objects do.

    Attributes:
        scale: Larger gives larger segments. It is meant for images of 128 pixels and grows with the root of the side,
            under which photographs kept about the same number of segments from 128 to 512 pixels.
        sigma: Blur before segmentation, in pixels.
        min_fraction: Smallest segment as a part of the image's area.

    Reference:
        Felzenszwalb, Huttenlocher, "Efficient Graph-Based Image Segmentation", 2004.
    """

    scale: float = 150.0
    sigma: float = 0.8
    min_fraction: float = 0.004

    def __post_init__(self) -> None:
        if not (self.scale > 0 and self.sigma >= 0 and 0 <= self.min_fraction < 1):
            raise InputError(f"felzenszwalb needs scale > 0, sigma >= 0 and 0 <= min_fraction < 1; got {self}.")

    def _segment(self, skimage: Any, pixels: np.ndarray) -> np.ndarray:
        area = pixels.shape[0] * pixels.shape[1]
        enlargement = area**0.5 / 128
        return skimage.segmentation.felzenszwalb(
            pixels,
            scale=self.scale * enlargement**0.5,
            sigma=self.sigma,
            min_size=max(1, round(self.min_fraction * area)),
            channel_axis=-1,
        )


@register_segmenter("slic")
@dataclass(frozen=True)
class Slic(_PerImage):
    """Superpixels: compact segments of similar size.

    Attributes:
        count: About how many segments an image gets.
        compactness: Larger gives squarer segments, smaller ones that follow colours.
        sigma: Blur before segmentation, in pixels; without it, grain can melt an image into one segment.

    Reference:
        Achanta, Shaji, Smith, Lucchi, Fua, Süsstrunk, "SLIC Superpixels Compared to State-of-the-Art Superpixel
        Methods", 2012.
    """

    count: int = 40
    compactness: float = 10.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not (self.count >= 1 and self.compactness > 0 and self.sigma >= 0):
            raise InputError(f"slic needs count >= 1, compactness > 0 and sigma >= 0; got {self}.")

    def _segment(self, skimage: Any, pixels: np.ndarray) -> np.ndarray:
        return skimage.segmentation.slic(
            pixels,
            n_segments=self.count,
            compactness=self.compactness,
            sigma=self.sigma,
            start_label=0,
            channel_axis=-1,
        )


def _scikit_image() -> Any:
    try:
        import skimage.segmentation
    except ImportError as error:
        raise MissingExtraError(
            'The segmenters "felzenszwalb" and "slic" need scikit-image: pip install "saminv[segment]". '
            'The segmenters "labels" and "none" work without it.'
        ) from error
    return skimage

"""Metrics on pixel values: mean squared error and peak signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._base import AbstractMetric, Prepared

PEAK = 2.0
"""Range of pixel values in [-1, 1]."""


class MSE(AbstractMetric):
    """Mean squared error over pixels and channels; the map is the mean over channels at each pixel.

    In [0, 4] for pictures in [-1, 1], 0 for identical ones; at the size of the pictures, without a backbone.
    """

    name = "mse"

    def _prepare(self, target: Tensor) -> Sequence[Tensor]:
        return (target,)

    def _score(self, image: Tensor, prepared: Prepared) -> Tensor:
        return (image - prepared.tensors[0]).square().mean(dim=(1, 2, 3))

    def _map(self, image: Tensor, prepared: Prepared) -> Tensor:
        return (image - prepared.tensors[0]).square().mean(dim=1, keepdim=True)


class PSNR(AbstractMetric):
    """Peak signal-to-noise ratio in dB, `10 log10(peak^2 / MSE)` with a peak of 2 for pixels in [-1, 1].

    At least 0 for pictures in [-1, 1]; at their size, without a backbone. Another range with its own peak, such as 255
    levels, gives the same number.

    Identical images give infinity, where the gradient is not finite: maximise it through ``mse``. Images are not
    clamped; clamp them first to judge what a viewer would see. With a weight the squared error is the weighted mean.
    """

    name = "psnr"
    higher_is_better = True
    spatial = False

    def __init__(self) -> None:
        super().__init__()
        self._mse = MSE()

    def _prepare(self, target: Tensor) -> Sequence[Tensor]:
        return self._mse._prepare(target)

    def _score(self, image: Tensor, prepared: Prepared) -> Tensor:
        return decibel(self._mse._score(image, prepared))

    def _weighted(self, image: Tensor, prepared: Prepared, weight: Tensor) -> Tensor:
        return decibel(self._mse._weighted(image, prepared, weight))

    def _map(self, image: Tensor, prepared: Prepared) -> Tensor:
        raise AssertionError("map() refuses metrics that are not spatial")


def decibel(mse: Tensor) -> Tensor:
    """PSNR in dB of a mean squared error between images in [-1, 1]; 0 gives infinity."""
    return 10.0 * torch.log10(PEAK**2 / mse)

"""Structural similarity, computed by kornia."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._errors import MissingExtraError
from ._base import AbstractMetric, Prepared

WINDOW = 11


class SSIM(AbstractMetric):
    """Structural similarity with a Gaussian window of 11 pixels (sigma 1.5) on values mapped to [0, 1].

    The global form is the mean over the places where the window lies within the image, as published, so that values can
    be compared with other implementations. The map covers the whole image, its border by reflection; a weighted score
    is the weighted mean of that map. 1 for identical images, and never above 1.

    Reference:
        Z. Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, Eq. 13.

    Raises:
        MissingExtraError: If kornia is not installed.
    """

    name = "ssim"
    higher_is_better = True
    smallest = WINDOW

    def __init__(self) -> None:
        super().__init__()
        try:
            from kornia.metrics import ssim
        except ImportError as error:
            raise MissingExtraError("The metric 'ssim' needs kornia: pip install kornia") from error
        self._ssim = ssim

    def _prepare(self, target: Tensor) -> Sequence[Tensor]:
        return (_unit_range(target),)

    def _score(self, image: Tensor, prepared: Prepared) -> Tensor:
        return self._ssim(_unit_range(image), prepared.tensors[0], WINDOW, padding="valid").mean(dim=(1, 2, 3))

    def _map(self, image: Tensor, prepared: Prepared) -> Tensor:
        return self._ssim(_unit_range(image), prepared.tensors[0], WINDOW, padding="same").mean(dim=1, keepdim=True)


def _unit_range(image: Tensor) -> Tensor:
    return (image + 1.0) / 2.0

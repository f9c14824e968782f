"""Structural similarity at one scale and at several."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .._errors import InputError
from ._base import AbstractMetric, Prepared, weighted_mean

WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03
"""Constants of the two terms, for values in [0, 1]."""

EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of MS-SSIM, the finest scale first."""


class SSIM(AbstractMetric):
    """Structural similarity with a Gaussian window of 11 pixels (sigma 1.5) on values mapped to [0, 1].

    Moments are those of the window (no correction for its size), channels are treated alike and averaged. The global
    form is the mean over the places where the window lies within the image, as published, so that values can be
    compared with other implementations. The map covers the whole image, its border by reflection; a weighted score is
    the weighted mean of that map. In [-1, 1], 1 for identical images; at the size of the images, at least 11 x 11,
    without a backbone.

    Reference:
        Z. Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, Eq. 13.
    """

    name = "ssim"
    higher_is_better = True
    smallest = WINDOW

    def _prepare(self, target: Tensor) -> Sequence[Tensor]:
        return (target,)

    def _score(self, image: Tensor, prepared: Prepared) -> Tensor:
        luminance, contrast = ssim_terms(image, prepared.tensors[0])
        return (luminance * contrast).mean(dim=(1, 2, 3))

    def _map(self, image: Tensor, prepared: Prepared) -> Tensor:
        luminance, contrast = ssim_terms(image, prepared.tensors[0], border=True)
        return (luminance * contrast).mean(dim=1, keepdim=True)


class MSSSIM(AbstractMetric):
    """Multi-scale structural similarity: the contrast and structure of five scales, the luminance of the coarsest.

    At each scale the term is averaged over channels and pixels and raised to its exponent; their product is the score.
    Scales are made by averages of 2 x 2 pixels (an odd last row or column is left out). A negative average counts as 0.
    Window, constants and values in [0, 1] are those of :class:`SSIM`. In [0, 1], 1 for identical images; at the size of
    the images, at least 176 x 176, without a backbone. A weight is averaged like the images, and the averages are
    weighted means over the whole image, its border by reflection.

    Args:
        scales: Number of scales. Fewer than five admit smaller images: the first exponents are divided by their sum,
            and the name says so ("ms-ssim-3"), since such values compare with their like only.

    Raises:
        InputError: If there are no or too many scales.

    Reference:
        Z. Wang et al., "Multi-scale Structural Similarity for Image Quality Assessment", 2003, Eq. 7; its section 4.
    """

    name = "ms-ssim"
    higher_is_better = True
    spatial = False

    def __init__(self, scales: int = len(EXPONENTS)) -> None:
        super().__init__()
        if not 1 <= scales <= len(EXPONENTS):
            raise InputError(f"scales={scales} given; MS-SSIM has 1 to {len(EXPONENTS)}.")
        chosen = EXPONENTS[:scales]
        whole = scales == len(EXPONENTS)
        # The published exponents add up to 1 already, but for their last digit.
        self.exponents = chosen if whole else tuple(exponent / sum(chosen) for exponent in chosen)
        self.name = "ms-ssim" if whole else f"ms-ssim-{scales}"
        self.smallest = WINDOW * 2 ** (scales - 1)

    def _prepare(self, target: Tensor) -> Sequence[Tensor]:
        return self._pyramid(target)

    def _score(self, image: Tensor, prepared: Prepared) -> Tensor:
        terms = self._terms(image, prepared, border=False)
        return self._product([term.mean(dim=(1, 2, 3)) for term in terms])

    def _weighted(self, image: Tensor, prepared: Prepared, weight: Tensor) -> Tensor:
        terms = self._terms(image, prepared, border=True)
        weights = self._pyramid(weight.to(image.dtype))
        return self._product([weighted_mean(term, part) for term, part in zip(terms, weights)])

    def _map(self, image: Tensor, prepared: Prepared) -> Tensor:
        raise AssertionError("map() refuses metrics that are not spatial")

    def _pyramid(self, image: Tensor) -> list[Tensor]:
        levels = [image]
        for _ in self.exponents[1:]:
            levels.append(F.avg_pool2d(levels[-1], 2))
        return levels

    def _terms(self, image: Tensor, prepared: Prepared, border: bool) -> list[Tensor]:
        """What each scale contributes, `[B, 3, h, w]`."""
        pairs = [ssim_terms(a, b, border) for a, b in zip(self._pyramid(image), prepared.tensors)]
        coarsest = pairs[-1]
        return [contrast for _, contrast in pairs[:-1]] + [coarsest[0] * coarsest[1]]

    def _product(self, means: Sequence[Tensor]) -> Tensor:
        return torch.stack([_power(mean, exponent) for mean, exponent in zip(means, self.exponents)]).prod(dim=0)


def ssim_terms(image: Tensor, target: Tensor, border: bool = False) -> tuple[Tensor, Tensor]:
    """Luminance, and contrast times structure, of images `[B, C, H, W]` in [-1, 1].

    Args:
        image: Images.
        target: What they are compared with, of the same shape.
        border: Whether to go on beyond the border by reflection; else only places with a whole window count.

    Returns:
        Twice `[B, C, h, w]`: the size of the images with ``border``, else 10 pixels less.
    """
    # Second moments around the middle of the range, and as one minus a quotient: nothing is lost where pictures are
    # flat or nearly equal, so that float32 suffices.
    x, y = image / 2, target.to(image.dtype) / 2
    mean_x, mean_y, squares, square_gap = _blur(torch.stack([x, y, x * x + y * y, (x - y).square()]), border).unbind()
    gap = (mean_x - mean_y).square()
    luminance = 1 - gap / ((mean_x + 0.5).square() + (mean_y + 0.5).square() + K1**2)
    variances = squares - mean_x.square() - mean_y.square()
    return luminance, 1 - (square_gap - gap) / (variances + K2**2)


def _blur(stack: Tensor, border: bool) -> Tensor:
    """Mean under the Gaussian window, of the last two axes of `[..., H, W]`."""
    taps = [math.exp(-0.5 * ((k - WINDOW // 2) / SIGMA) ** 2) for k in range(WINDOW)]
    window = torch.tensor([tap / sum(taps) for tap in taps], device=stack.device, dtype=stack.dtype)
    # All planes as channels of one picture, which is how convolutions of single planes are fast.
    x = stack.reshape(1, -1, *stack.shape[-2:])
    if border:
        x = F.pad(x, (WINDOW // 2,) * 4, mode="reflect")
    for axis in (2, 3):
        kernel = window.unflatten(0, (WINDOW, 1) if axis == 2 else (1, WINDOW))
        x = F.conv2d(x, kernel.expand(x.shape[1], 1, -1, -1), groups=x.shape[1])
    return x.reshape(*stack.shape[:-2], *x.shape[-2:])


def _power(base: Tensor, exponent: float) -> Tensor:
    """``base ** exponent``, 0 for what is not positive, with a finite gradient there."""
    positive = base > 0
    return torch.where(positive, torch.where(positive, base, 1.0) ** exponent, torch.zeros_like(base))

"""Changes of training images that leave their error maps valid, or nearly so."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .._errors import InputError


@dataclass(frozen=True)
class Augmentation:
    """How images and their error maps are varied; every image by itself.

    Attributes:
        flip: Chance of a horizontal flip of the image and its maps.
        blur: Chance of a Gaussian blur of the image.
        blur_sigma: Largest standard deviation of the blur in pixels; each is drawn evenly from 0 to it.
        noise: Largest standard deviation of noise, in the range [-1, 1] of images; likewise.
        brightness: Largest change of brightness, up or down, in the same range.
    """

    flip: float = 0.5
    blur: float = 0.5
    blur_sigma: float = 1.0
    noise: float = 0.0
    brightness: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.flip <= 1 and 0 <= self.blur <= 1):
            raise InputError(f"flip and blur are chances from 0 to 1; got {self.flip} and {self.blur}.")
        if not all(value >= 0 for value in (self.blur_sigma, self.noise, self.brightness)):
            raise InputError(f"blur_sigma, noise and brightness must be at least 0; got {self}.")

    def __call__(self, images: Tensor, errors: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Vary images `[B, 3, H, W]` in [-1, 1] and errors `[B, K, H, W]` by random numbers of ``source``."""
        draws = torch.rand(5, len(images), 1, 1, 1, generator=source)
        turned = draws[0] < self.flip
        images = torch.where(turned, images.flip(-1), images)
        errors = torch.where(turned, errors.flip(-1), errors)
        sigma = torch.where(draws[1] < self.blur, self.blur_sigma * draws[2], 0.0).flatten()
        if float(sigma.max()) > 0:
            images = blur(images, sigma)
        if self.noise > 0:
            images = images + self.noise * draws[3] * torch.randn(images.shape, generator=source)
        images = images + self.brightness * (2 * draws[4] - 1)
        return images.clamp(-1, 1), errors


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of images `[B, 3, H, W]`, each by its own ``sigma`` `[B]` in pixels; borders are repeated."""
    radius = int(3 * float(sigma.max()) + 1)
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype)
    # So small a sigma leaves the image as it is, without a division by 0.
    taps = torch.exp(-0.5 * (offsets / sigma.reshape(-1, 1).clamp_min(1e-3)).square())
    taps = (taps / taps.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)[:, None, None]
    flat = F.pad(images.flatten(0, 1)[None], (radius,) * 4, mode="replicate")
    flat = F.conv2d(flat, taps, groups=flat.shape[1])
    flat = F.conv2d(flat, taps.transpose(2, 3), groups=flat.shape[1])
    return flat[0].reshape(images.shape)

"""Changes of training images: such that leave error maps valid, or nearly so, and such that gradients pass through.

Reference:
    Zhao et al., 2020, arXiv 2006.10738 (differentiable augmentation).
"""

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


@dataclass(frozen=True)
class DifferentiableAugmentation:
    """Changes of all that a discriminator sees, real and generated, so that it cannot learn few pictures by heart.

    Gradients pass through to the images, of every order. Every image is changed by itself.

    Attributes:
        colour: Change brightness by up to 0.5 either way, saturation by a factor from 0 to 2, contrast by one from 0.5
            to 1.5.
        translation: Largest shift along each axis, as a part of the side; what comes in from outside is 0.
        cutout: Side of the square that is set to 0 somewhere, as a part of the side; it may lie partly outside.

    Raises:
        InputError: If a part does not lie from 0 to 1.

    Reference:
        Zhao et al., 2020, arXiv 2006.10738, section 3.2, with the amounts of its appendix.
    """

    colour: bool = True
    translation: float = 0.125
    cutout: float = 0.5

    def __post_init__(self) -> None:
        if not (0 <= self.translation <= 1 and 0 <= self.cutout <= 1):
            raise InputError(f"translation and cutout are parts of the side, from 0 to 1; got {self}.")

    def __call__(self, images: Tensor, source: torch.Generator) -> Tensor:
        """Change images `[B, 3, H, W]` in [-1, 1] by random numbers of ``source``, a generator of the CPU."""
        draws = torch.rand(7, len(images), generator=source)
        if self.colour:
            images = _recoloured(images, draws[:3].to(images))
        if self.translation > 0:
            images = _shifted(images, draws[3:5], self.translation)
        if self.cutout > 0:
            images = _cut_out(images, draws[5:], self.cutout)
        return images


def _recoloured(images: Tensor, draws: Tensor) -> Tensor:
    """Brightness, saturation and contrast by draws `[3, B]` from 0 to 1."""
    brightness, saturation, contrast = draws[..., None, None, None]
    images = images + (brightness - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = torch.lerp(grey, images, 2 * saturation)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, 0.5 + contrast)


def _shifted(images: Tensor, draws: Tensor, part: float) -> Tensor:
    """Images moved by whole pixels, by draws `[2, B]` from 0 to 1."""
    sides = images.shape[-2:]
    reach = [round(part * side) for side in sides]
    padded = F.pad(images, (reach[1], reach[1], reach[0], reach[0]))
    starts = [[int(draw * (2 * most + 1)) for draw in row] for row, most in zip(draws.tolist(), reach)]
    moved = [
        image[:, top : top + sides[0], left : left + sides[1]] for image, top, left in zip(padded, *starts, strict=True)
    ]
    return torch.stack(moved)


def _cut_out(images: Tensor, draws: Tensor, part: float) -> Tensor:
    """Images without a square, whose middle is drawn evenly, by draws `[2, B]` from 0 to 1."""
    inside = []
    for draw, side in zip(draws, images.shape[-2:]):
        length = round(part * side)
        # The middle of a square of an even number of pixels lies between two of them.
        first = (draw * (side + 1 - length % 2)).floor() - length // 2
        offset = torch.arange(side)[None] - first[:, None]
        inside.append((offset >= 0) & (offset < length))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images * (~hole).to(images)

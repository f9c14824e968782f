"""A batch of pictures that shapes are painted on, each with its own exact label.

Shapes are given by signed distances in pixels (negative inside). A pixel's coverage is that of a half plane at the same
distance, so edges are anti-aliased without supersampling. Colours in this file are RGB in [0, 1].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Canvas:
    """Pictures `[B, 3, h, W]` in [0, 1], labels uint8 `[B, h, W]` and the coordinates of their pixel centres.

    Coordinates are in units of the whole picture, x to the right `[1, 1, 1, W]` and y down `[1, 1, h, 1]`, in (0, 1);
    ``size`` is how many pixels a unit has. With a ``mask`` `[B, 1, h, W]` the canvas notes how much of each pixel was
    painted over.
    """

    def __init__(self, image: Tensor, segments: Tensor, x: Tensor, y: Tensor, mask: Tensor | None = None) -> None:
        self.image = image
        self.segments = segments
        self.x = x
        self.y = y
        self.mask = mask
        self.size = image.shape[-1]

    @classmethod
    def blank(cls, batch: int, size: int, device: torch.device) -> Canvas:
        """A black square canvas whose label is 0 everywhere."""
        image = torch.zeros(batch, 3, size, size, device=device)
        segments = torch.zeros(batch, size, size, device=device, dtype=torch.uint8)
        return cls(image, segments, *pixel_grid(size, device))

    def rows(self, top: float, bottom: float) -> Canvas:
        """The part of the canvas between two heights, as a view: what is painted there shows up here.

        A shape is cheaper to paint where it can lie than on the whole canvas.
        """
        part = slice(math.floor(top * self.size), math.ceil(bottom * self.size))
        mask = None if self.mask is None else self.mask[:, :, part]
        return Canvas(self.image[:, :, part], self.segments[:, part], self.x, self.y[:, :, part], mask)

    def paint(self, distance: Tensor, colour: Tensor, label: int | None = None) -> None:
        """Paint a shape given by its ``distance`` in pixels, `[B, 1, h, W]` or broadcastable to it, with a ``colour``.

        Without a ``label`` the labels stay: for light, reflections and markings that are part of what they lie on.
        """
        distance = distance.expand_as(self.image[:, :1])
        if label is not None:
            self.segments.masked_fill_(distance[:, 0] < 0, label)
        self.blend((0.5 - distance).clamp_(0, 1), colour)

    def blend(self, weight: Tensor, colour: Tensor) -> None:
        """Mix ``colour`` into the picture by ``weight`` `[B, 1, h, W]` in [0, 1]."""
        # In place: on a CPU most of the time of small elementwise work goes into fresh memory.
        self.image.lerp_(colour.expand_as(self.image), weight)
        if self.mask is not None:
            self.mask.lerp_(torch.ones_like(self.mask), weight)


def pixel_grid(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixel centres in units of the picture: x `[1, 1, 1, W]` to the right and y `[1, 1, H, 1]` down, in (0, 1)."""
    centres = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size
    return centres.reshape(1, 1, 1, size), centres.reshape(1, 1, size, 1)


def length(x: Tensor, y: Tensor) -> Tensor:
    """Length of the vector (x, y); much faster on a CPU than ``torch.hypot``, which guards against overflow."""
    return (x * x + y * y).sqrt()


def rounded_intersection(a: Tensor, b: Tensor, radius: float | Tensor) -> Tensor:
    """Distance to the intersection of two shapes whose common corner is rounded by ``radius``."""
    corner = length((a + radius).clamp_(min=0), (b + radius).clamp_(min=0))
    return torch.maximum(a, b).clamp_(max=-radius) + corner


def rounded_box(x: Tensor, y: Tensor, half_width: float | Tensor, half_height: float | Tensor, radius: float) -> Tensor:
    """Distance to an axis-aligned box around the origin with rounded corners."""
    return rounded_intersection(x.abs() - half_width, y.abs() - half_height, radius)


def ellipse(x: Tensor, y: Tensor, half_width: float | Tensor, half_height: float | Tensor) -> Tensor:
    """Distance to an ellipse around the origin, to first order in the distance from its edge."""
    level = length(x / half_width, y / half_height)
    slope = length(x / half_width**2, y / half_height**2).clamp_(min=1e-4)
    return level * (level - 1) / slope


def hue_colour(angle: Tensor, chroma: float | Tensor, lightness: Tensor) -> Tensor:
    """RGB `[B, 3, 1, 1]` of a hue ``angle`` `[B, 1, 1, 1]` in radians.

    Red is 0, green 2/3 pi, blue 4/3 pi. The colour moves on a circle around grey, so :func:`hue_angle` returns the same
    angle from any positive multiple of it or after any change of lightness.
    """
    phase = torch.tensor([0.0, 2 / 3 * math.pi, 4 / 3 * math.pi], device=angle.device, dtype=angle.dtype)
    return lightness + chroma * torch.cos(angle - phase.reshape(1, 3, 1, 1))


def hue_angle(colour: Tensor) -> Tensor:
    """Hue angle `[B, ...]` in (-pi, pi] of RGB colours `[B, 3, ...]`; the inverse of :func:`hue_colour`."""
    red, green, blue = colour.unbind(1)
    return torch.atan2(math.sqrt(3) * (green - blue), 2 * red - green - blue)

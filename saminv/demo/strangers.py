"""Strangers: things in a scene that a generator trained on scenes never saw, with exact masks and labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from .._errors import InputError
from ._canvas import Canvas, ellipse, hue_colour, length, pixel_grid, rounded_box
from ._font import cell_coverage, text_cells
from .scenes import SEGMENT_INDEX, STRANGER_SEGMENTS, SceneBatch, car_frame, render, sample_factors

T = TypeVar("T")

_WORDS = ("SALE", "CAFE", "TAXI", "JAZZ", "PARK", "ZOO", "GAN", "WOW", "STOP", "LOFT")


def sample_scenes(
    n: int, seed: int = 0, strangers: bool = False, size: int = 128, device: str | torch.device = "cpu"
) -> SceneBatch:
    """Draw ``n`` random scenes, each with one to three strangers if asked for.

    The scenes of a seed are the same with and without strangers, and the first ones do not depend on ``n``.

    Raises:
        InputError: If ``n`` or ``size`` is not a whole number in the allowed range.
    """
    batch = render(sample_factors(n, seed, device), size)
    return add_strangers(batch, seed) if strangers else batch


def add_strangers(batch: SceneBatch, seed: int = 0, kinds: Sequence[str] | None = None) -> SceneBatch:
    """Put strangers into scenes: the named ``kinds``, or one to three random ones per scene.

    Images, labels and masks change only where a stranger covers part of a pixel.

    Raises:
        InputError: If a kind is unknown.
    """
    for kind in kinds or ():
        if kind not in _PAINTERS:
            raise InputError(f"Unknown stranger {kind!r}. Known: {', '.join(_PAINTERS)}.")
    scenes = [_with_strangers(batch, index, seed, kinds) for index in range(len(batch.images))]
    images, segments, masks = (torch.cat(parts) for parts in zip(*scenes, strict=True))
    return SceneBatch(images, batch.factors, segments, masks)


class _Draw:
    """Random numbers of one scene; always drawn on the CPU so that every device sees the same scene."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self._generator))

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self._generator))

    def shuffled(self, items: Sequence[T]) -> list[T]:
        return [items[i] for i in torch.randperm(len(items), generator=self._generator).tolist()]


@dataclass(frozen=True)
class _Stage:
    """What a painter gets: the canvas of one scene, its factors `[1, F]`, random numbers and a third of the sky."""

    canvas: Canvas
    factors: Tensor
    draw: _Draw
    slot: float
    label: int

    def rgb(self, red: float, green: float, blue: float) -> Tensor:
        return torch.tensor([red, green, blue], device=self.canvas.image.device).reshape(1, 3, 1, 1)

    def vivid(self, lightness: float, chroma: float = 0.42) -> Tensor:
        """A random saturated colour `[1, 3, 1, 1]`."""
        angle = torch.full((1, 1, 1, 1), self.draw.uniform(0, 2 * math.pi), device=self.canvas.image.device)
        return hue_colour(angle, chroma, torch.full_like(angle, lightness)).clamp(0, 1)

    def paint(self, distance: Tensor, colour: Tensor) -> None:
        """Paint a part of the stranger; ``distance`` is in units of the picture."""
        self.canvas.paint(distance * self.canvas.size, colour, self.label)


def _with_strangers(
    batch: SceneBatch, index: int, seed: int, kinds: Sequence[str] | None
) -> tuple[Tensor, Tensor, Tensor]:
    draw = _Draw((seed * 1_000_003 + 7_919 * (index + 1)) % 2**63)
    one = slice(index, index + 1)
    image, mask = batch.images[one], batch.stranger_masks[one]
    grid = pixel_grid(image.shape[-1], image.device)
    canvas = Canvas((image + 1) / 2, batch.segments[one].clone(), *grid, torch.zeros_like(mask))
    chosen = _random_kinds(draw) if kinds is None else kinds
    slots = draw.shuffled((0.19, 0.50, 0.81))
    # Far things first, so that near ones cover them.
    for place, kind in enumerate(sorted(chosen, key=tuple(_PAINTERS).index)):
        _PAINTERS[kind](_Stage(canvas, batch.factors[one], draw, slots[place % 3], SEGMENT_INDEX[kind]))
    painted = canvas.mask
    assert painted is not None
    # Unpainted pixels keep their values to the last bit.
    image = torch.where(painted > 0, canvas.image.clamp(0, 1) * 2 - 1, image)
    return image, canvas.segments, painted + mask * (1 - painted)


def _random_kinds(draw: _Draw) -> list[str]:
    # The first is a large one: a lone decal is too small to say anything about a picture's inversion.
    first = draw.shuffled(_LARGE)[0]
    others = draw.shuffled([kind for kind in _PAINTERS if kind != first])
    return [first, *others[: draw.integer(0, 2)]]


def _balloon(stage: _Stage) -> None:
    """A hot-air balloon: nested ellipses of one height make its stripes."""
    draw, canvas = stage.draw, stage.canvas
    radius = draw.uniform(0.085, 0.12)
    x = canvas.x - (stage.slot + draw.uniform(-0.05, 0.05))
    y = canvas.y - draw.uniform(0.16, 0.24)
    first, second = stage.vivid(0.55), stage.rgb(0.97, 0.95, 0.90)
    dark = stage.rgb(0.30, 0.20, 0.14)
    drop = 1.55 * radius
    for side in (-1, 1):
        rope = (x - side * (0.16 * radius + 0.40 * (drop - y))).abs() - 0.005
        stage.paint(torch.maximum(rope, (y - 1.25 * radius).abs() - 0.32 * radius), dark)
    stage.paint(rounded_box(x, y - drop - 0.02, 0.24 * radius, 0.024, 0.006), dark)
    for width, colour in ((1.0, first), (0.74, second), (0.45, first), (0.15, second)):
        stage.paint(ellipse(x, y, width * radius, 1.12 * radius), colour)


def _rain(stage: _Stage) -> None:
    """A dark cloud with slanted streaks below it."""
    draw, canvas = stage.draw, stage.canvas
    x = canvas.x - (stage.slot + draw.uniform(-0.04, 0.04))
    y = canvas.y - draw.uniform(0.12, 0.18)
    drop = stage.rgb(0.30, 0.42, 0.72)
    slant = draw.uniform(0.18, 0.32)
    for column in range(-3, 4):
        for row in range(3):
            across = x - 0.046 * column - 0.012 * (row - 1) + slant * y
            down = y - 0.115 - 0.085 * row - draw.uniform(-0.02, 0.02)
            stage.paint(rounded_box(across, down, 0.0065, 0.026, 0.006), drop)
    grey = stage.rgb(0.36, 0.38, 0.45)
    for shift, height, radius in ((-0.10, 0.012, 0.050), (-0.035, -0.018, 0.068), (0.05, -0.008, 0.060)):
        stage.paint(length(x - shift, y - height) - radius, grey)
    stage.paint(rounded_box(x, y - 0.03, 0.155, 0.034, 0.033), grey)


def _bird(stage: _Stage) -> None:
    """A few gulls: two crescent wings each."""
    draw, canvas = stage.draw, stage.canvas
    dark = stage.rgb(0.10, 0.10, 0.16)
    for number in range(draw.integer(3, 4)):
        span = draw.uniform(0.050, 0.066)
        x = canvas.x - (stage.slot + 0.07 * (number % 2 * 2 - 1) + draw.uniform(-0.03, 0.03))
        y = canvas.y - (0.09 + 0.085 * number + draw.uniform(-0.015, 0.015))
        # A wing is a disc less a larger, lower one.
        wing = length(x.abs() - 0.62 * span, y) - 0.70 * span
        below = length(x.abs() - 0.66 * span, y - 0.42 * span) - 0.82 * span
        stage.paint(torch.maximum(wing, -below), dark)
        stage.paint(ellipse(x, y - 0.02 * span, 0.20 * span, 0.42 * span), dark)


def _poster(stage: _Stage) -> None:
    """A billboard on two posts with one or two words, behind the car."""
    draw, canvas = stage.draw, stage.canvas
    words = draw.shuffled(_WORDS)[: draw.integer(1, 2)]
    half_width, half_height = draw.uniform(0.14, 0.165), 0.055 + 0.05 * (len(words) - 1)
    centre_x = min(max(stage.slot + draw.uniform(-0.04, 0.04), half_width + 0.015), 0.985 - half_width)
    bottom = draw.uniform(0.50, 0.54)
    centre_y = bottom - half_height
    x, y = canvas.x - centre_x, canvas.y - centre_y
    ink = stage.vivid(0.32, 0.30)
    car = car_frame(stage.factors, canvas)
    visible = -car.silhouette() * car.pixels / canvas.size
    posts = torch.maximum((x.abs() - 0.72 * half_width).abs() - 0.010, (canvas.y - 0.57).abs() - 0.07)
    stage.paint(torch.maximum(posts, visible), stage.rgb(0.32, 0.27, 0.24))
    stage.paint(torch.maximum(rounded_box(x, y, half_width, half_height, 0.008), visible), ink)
    paper = rounded_box(x, y, half_width - 0.014, half_height - 0.014, 0.006)
    stage.paint(torch.maximum(paper, visible), stage.rgb(0.98, 0.95, 0.84))
    shown = (0.5 - visible * canvas.size).clamp(0, 1)
    for line, word in enumerate(words):
        cells = text_cells(word)
        middle = centre_y + 0.098 * (line - (len(words) - 1) / 2)
        half_text = min(half_width - 0.028, 0.0068 * cells.shape[1])
        box = (centre_x - half_text, middle - 0.034, centre_x + half_text, middle + 0.034)
        canvas.blend(cell_coverage(cells, box, canvas.size).to(ink.device) * shown, ink)


def _decal(stage: _Stage) -> None:
    """A stripe of checks or a numbered disc on the car's side."""
    draw, canvas = stage.draw, stage.canvas
    car = car_frame(stage.factors, canvas)
    unit = car.pixels / canvas.size
    side = torch.maximum(car.body(), 1.22 * car.wheel_radius - car.axle_distance())
    light, dark = stage.rgb(0.97, 0.96, 0.93), stage.rgb(0.12, 0.12, 0.15)
    if draw.uniform(0, 1) < 0.5:
        band = torch.maximum(side, (car.y - 0.112).abs() - 0.024)
        stage.paint(band * unit, light)
        cell = 0.024
        # The product of two triangle waves has the sign of a check; its distance is that to the nearer of the lines.
        wave_x = (torch.remainder(car.x, 2 * cell) - cell).abs() - cell / 2
        wave_y = car.y - 0.112
        check = -torch.sign(wave_x * wave_y) * torch.minimum(wave_x.abs(), wave_y.abs())
        stage.paint(torch.maximum(band, check) * unit, dark)
        return
    stage.paint(torch.maximum(side, length(car.x + 0.012, car.y - 0.098) - 0.046) * unit, light)
    scale = float(unit)
    centre_x, centre_y = car.origin(canvas, -0.012, 0.098)
    cells = text_cells(draw.shuffled(("3", "5", "7", "8"))[0])
    box = (centre_x - 0.020 * scale, centre_y - 0.030 * scale, centre_x + 0.020 * scale, centre_y + 0.030 * scale)
    canvas.blend(cell_coverage(cells, box, canvas.size).to(dark.device), dark)


def _fence(stage: _Stage) -> None:
    """A picket fence in front of a part of the car."""
    draw, canvas = stage.draw, stage.canvas
    car = car_frame(stage.factors, canvas)
    centre_x, ground = car.origin(canvas)
    boards = draw.integer(4, 6)
    pitch = draw.uniform(0.062, 0.074)
    top, foot = ground - draw.uniform(0.11, 0.15), ground + draw.uniform(0.05, 0.08)
    centre = min(max(centre_x + draw.uniform(-0.16, 0.16), 0.5 * boards * pitch), 1 - 0.5 * boards * pitch)
    x = canvas.x - centre
    wood = stage.rgb(0.95, 0.93, 0.88) if draw.uniform(0, 1) < 0.5 else stage.rgb(0.56, 0.36, 0.20)
    half = boards * pitch / 2
    for height in (top + 0.055, foot - 0.045):
        stage.paint(rounded_box(x, canvas.y - height, half, 0.011, 0.003), wood * 0.80)
    number = torch.floor((x + half) / pitch).clamp(0, boards - 1)
    across = (x + half - (number + 0.5) * pitch).abs()
    point = (across + (top - canvas.y)) * math.sqrt(0.5)
    board = torch.maximum(torch.maximum(across - 0.30 * pitch, point), canvas.y - foot)
    stage.paint(board, wood)


_LARGE = ("balloon", "rain", "poster", "fence")
_PAINTERS: dict[str, Callable[[_Stage], None]] = {
    "balloon": _balloon,
    "rain": _rain,
    "bird": _bird,
    "poster": _poster,
    "decal": _decal,
    "fence": _fence,
}
assert set(_LARGE) < set(_PAINTERS)
assert set(_PAINTERS) == set(STRANGER_SEGMENTS)

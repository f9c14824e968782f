"""Car scenes drawn by formula: every picture is a function of named factors, with exact labels at any size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .._errors import InputError
from ._canvas import Canvas, ellipse, hue_angle, hue_colour, length, rounded_box, rounded_intersection

CONTINUOUS_FACTORS: tuple[str, ...] = (
    "car_x",
    "car_y",
    "car_size",
    "car_hue",
    "car_lightness",
    "body_length",
    "cabin_height",
    "wheel_size",
    "window_tint",
    "sky_hue",
    "sky_lightness",
    "hill_height",
    "hill_shift",
    "hill_hue",
    "ground_hue",
    "road_lightness",
)
BINARY_FACTORS: tuple[str, ...] = ("facing", "headlights")
FACTORS: tuple[str, ...] = CONTINUOUS_FACTORS + BINARY_FACTORS
"""Names of the factors in the order of their columns: uniform in [0, 1] first, then binary ones (0 or 1)."""
FACTOR_INDEX: dict[str, int] = {name: column for column, name in enumerate(FACTORS)}

SCENE_SEGMENTS: tuple[str, ...] = (
    "sky",
    "sun",
    "hills",
    "ground",
    "road",
    "shadow",
    "body",
    "cabin",
    "windows",
    "wheels",
    "lights",
)
STRANGER_SEGMENTS: tuple[str, ...] = ("fence", "balloon", "poster", "bird", "decal", "rain")
SEGMENT_NAMES: tuple[str, ...] = SCENE_SEGMENTS + STRANGER_SEGMENTS
"""Names of the labels; the position of a name is its id."""
SEGMENT_INDEX: dict[str, int] = {name: label for label, name in enumerate(SEGMENT_NAMES)}
CAR_SEGMENTS: tuple[int, ...] = tuple(SEGMENT_INDEX[n] for n in ("body", "cabin", "windows", "wheels", "lights"))
"""Ids of the labels that make up the car (its shadow is not part of it)."""

HUE_ARC: tuple[float, float] = (math.radians(-20), math.radians(280))
"""Hue angles of ``car_hue`` 0 and 1. It is an arc, not the circle, so that a colour belongs to one factor."""

_HORIZON = 0.56
_ROAD = (0.69, 0.93)
_BELT = 0.150
_SILL = 0.042


@dataclass(frozen=True)
class SceneBatch:
    """Scenes and all that is known about them.

    Attributes:
        images: `[B, 3, H, W]` in [-1, 1].
        factors: `[B, F]` in [0, 1], columns as in :data:`FACTORS`.
        segments: int64 `[B, H, W]`, the label of the front-most object that covers the pixel's centre.
        stranger_masks: `[B, 1, H, W]` in [0, 1], how much of the pixel a stranger covers; zeros without strangers.
    """

    images: Tensor
    factors: Tensor
    segments: Tensor
    stranger_masks: Tensor


@dataclass(frozen=True)
class CarFrame:
    """The car's own coordinates: x `[B, 1, 1, W]` towards its front, y `[B, 1, h, 1]` upwards from where it stands.

    One unit is the picture's width for a car of size 1; ``pixels`` `[B, 1, 1, 1]` is how many pixels that is.
    """

    x: Tensor
    y: Tensor
    pixels: Tensor
    half_length: Tensor
    cabin_height: Tensor
    wheel_radius: Tensor

    def body(self) -> Tensor:
        """Distance to the lower body, in units."""
        # The bonnet falls off towards the front, and its corner is rounder than that of the boot.
        top = self.y - _BELT + 0.10 * (self.x - 0.06).clamp(min=0)
        radius = 0.036 + 0.012 * (self.x > 0)
        return rounded_intersection(self.x.abs() - self.half_length, torch.maximum(top, _SILL - self.y), radius)

    def cabin(self) -> Tensor:
        """Distance to the cabin, in units; it reaches down into the body."""
        sides, top = self._cabin_planes()
        return rounded_intersection(sides, torch.maximum(top, 0.10 - self.y), 0.04)

    def windows(self) -> Tensor:
        """Distance to the two windows, in units."""
        sides, top = self._cabin_planes()
        glass = rounded_intersection(sides + 0.024, torch.maximum(top + 0.020, _BELT - 0.002 - self.y), 0.016)
        pillar = 0.011 - (self.x + 0.10 * self.half_length).abs()
        return rounded_intersection(glass, pillar, 0.006)

    def axle_distance(self) -> Tensor:
        """Distance to the centre of the nearer wheel, in units."""
        across = (self.x + 0.01).abs() - 0.60 * self.half_length
        return length(across, self.y - self.wheel_radius)

    def silhouette(self) -> Tensor:
        """Distance to the whole car, in units."""
        upper = torch.minimum(self.body(), self.cabin())
        return torch.minimum(upper, self.axle_distance() - self.wheel_radius)

    def origin(self, canvas: Canvas, x: float = 0.0, y: float = 0.0) -> tuple[float, float]:
        """Where the point (x, y) of the first car lies on ``canvas``, in units of the picture."""
        unit = float(self.pixels[0]) / canvas.size
        left, right = float(self.x[0, 0, 0, 0]), float(self.x[0, 0, 0, -1])
        across = (x - left) * (unit if right > left else -unit)
        return float(canvas.x[0, 0, 0, 0]) + across, float(canvas.y[0, 0, 0, 0]) + (
            float(self.y[0, 0, 0, 0]) - y
        ) * unit

    def _cabin_planes(self) -> tuple[Tensor, Tensor]:
        # The windscreen leans more than the rear window; both lean around their foot on the belt line.
        rise = self.y - _BELT
        front = (self.x - 0.50 * self.half_length + 0.75 * rise) / 1.25
        rear = (-self.x - 0.78 * self.half_length + 0.45 * rise) / math.hypot(1, 0.45)
        return torch.maximum(front, rear), rise - self.cabin_height


def factors_from_z(z: Tensor) -> Tensor:
    """Factors `[B, F]` of latents ``z`` `[B, Z]`, Z at least the number of factors.

    ``z`` is normalised to unit mean square first, as a StyleGAN2 mapping network does, so both see the same quantity.
    Continuous factors are the normal distribution function of the first coordinates, binary ones the sign of theirs.

    Raises:
        InputError: If ``z`` has another shape or too few coordinates.
    """
    if z.dim() != 2 or z.shape[1] < len(FACTORS):
        raise InputError(f"z has shape {tuple(z.shape)}; needed is [B, Z], Z >= {len(FACTORS)}, for example [8, 64].")
    normalised = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
    split = len(CONTINUOUS_FACTORS)
    uniform = torch.special.ndtr(normalised[:, :split])
    binary = (normalised[:, split : len(FACTORS)] > 0).to(z.dtype)
    return torch.cat([uniform, binary], dim=1)


def sample_factors(n: int, seed: int = 0, device: str | torch.device = "cpu") -> Tensor:
    """Random factors `[n, F]`, uniform or binary; the same for the same seed on every device.

    Raises:
        InputError: If ``n`` is not a positive whole number.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InputError(f"n is {n!r}; needed is a whole number of scenes, 1 or more.")
    # Drawn on the CPU: other devices have other random streams.
    factors = torch.rand(n, len(FACTORS), generator=torch.Generator().manual_seed(seed))
    split = len(CONTINUOUS_FACTORS)
    factors[:, split:] = (factors[:, split:] > 0.5).float()
    return factors.to(device)


def render(factors: Tensor, size: int = 128) -> SceneBatch:
    """Draw the scenes of ``factors`` `[B, F]` in [0, 1] at ``size`` x ``size`` pixels.

    Raises:
        InputError: If the factors have another shape, leave [0, 1] or are not numbers, or the size is below 8.
    """
    _check(factors, size)
    factors = factors.float()
    f = _columns(factors)
    canvas = Canvas.blank(len(factors), size, factors.device)
    _paint_sky(canvas, f)
    _paint_hills(canvas.rows(0.30, 0.60), f)
    _paint_ground(canvas.rows(0.54, 1.0), f)
    _paint_road(canvas.rows(0.66, 0.96), f)
    _paint_car(canvas.rows(0.42, 0.94), f)
    images = (canvas.image * 2 - 1).clamp_(-1, 1)
    return SceneBatch(images, factors, canvas.segments.long(), torch.zeros_like(images[:, :1]))


def car_frame(factors: Tensor, canvas: Canvas) -> CarFrame:
    """The car's coordinates and measures in scenes of ``factors`` `[B, F]`, for the pixels of ``canvas``."""
    return _car_frame(_columns(factors), canvas)


def _car_frame(f: dict[str, Tensor], canvas: Canvas) -> CarFrame:
    scale = _span(f["car_size"], 0.82, 1.20)
    across = (canvas.x - _span(f["car_x"], 0.34, 0.66)) / scale * torch.where(f["facing"] > 0.5, 1.0, -1.0)
    above = (_span(f["car_y"], 0.77, 0.86) - canvas.y) / scale
    half_length = _span(f["body_length"], 0.225, 0.275)
    cabin_height = _span(f["cabin_height"], 0.075, 0.125)
    wheel_radius = _span(f["wheel_size"], 0.046, 0.062)
    return CarFrame(across, above, scale * canvas.size, half_length, cabin_height, wheel_radius)


def car_hue_angle(factor: Tensor) -> Tensor:
    """Hue angle in radians of values of the factor ``car_hue``."""
    return HUE_ARC[0] + (HUE_ARC[1] - HUE_ARC[0]) * factor


def read_car_hue(images: Tensor, segments: Tensor) -> Tensor:
    """Hue angle `[B]` of the body's mean colour in ``images`` `[B, 3, H, W]`, continuous along :data:`HUE_ARC`.

    The angle is cut in the middle of the gap that the arc leaves. Not a number where no body is visible.
    """
    inside = (segments == SEGMENT_INDEX["body"]).unsqueeze(1).to(images.dtype)
    angle = hue_angle((images * inside).sum(dim=(2, 3)) / inside.sum(dim=(2, 3)))
    cut = (sum(HUE_ARC) - 2 * math.pi) / 2
    return cut + torch.remainder(angle - cut, 2 * math.pi)


def _check(factors: Tensor, size: int) -> None:
    if factors.dim() != 2 or factors.shape[1] != len(FACTORS):
        names = ", ".join(FACTORS)
        raise InputError(f"factors have shape {tuple(factors.shape)}; needed is [B, {len(FACTORS)}]: {names}.")
    if not bool(((factors >= 0) & (factors <= 1)).all()):
        raise InputError("factors must be numbers in [0, 1]; clamp them, or use factors_from_z for normal latents.")
    if isinstance(size, bool) or not isinstance(size, int) or size < 8:
        raise InputError(f"size is {size!r}; needed is a whole number of pixels, 8 or more.")


def _span(factor: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * factor


def _rgb(like: Tensor, red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue], device=like.device, dtype=like.dtype).reshape(1, 3, 1, 1)


def _columns(factors: Tensor) -> dict[str, Tensor]:
    return {name: factors[:, column].reshape(-1, 1, 1, 1) for name, column in FACTOR_INDEX.items()}


def _paint_sky(canvas: Canvas, f: dict[str, Tensor]) -> None:
    # From cyan over blue and violet to rose; always paler at the horizon.
    angle = math.radians(195) + math.radians(140) * f["sky_hue"]
    zenith = hue_colour(angle, 0.19, _span(f["sky_lightness"], 0.58, 0.76))
    horizon = 0.28 * zenith + 0.72 * _rgb(zenith, 1.0, 0.94, 0.86)
    canvas.image.copy_(torch.lerp(zenith, horizon, (canvas.y / _HORIZON).clamp(0, 1)))
    height = _span(f["sky_lightness"], 0.26, 0.13)
    upper = canvas.rows(0.0, 0.36)
    disc = length(upper.x - 0.78, upper.y - height) - 0.07
    upper.paint(disc * canvas.size, _rgb(zenith, 1.0, 0.93, 0.70), SEGMENT_INDEX["sun"])


def _paint_hills(canvas: Canvas, f: dict[str, Tensor]) -> None:
    angle = math.radians(85) + math.radians(150) * f["hill_hue"]
    near = hue_colour(angle, 0.13, torch.full_like(angle, 0.46))
    far = 0.55 * near + 0.45 * _rgb(near, 0.86, 0.86, 0.92)
    shift = 0.55 * f["hill_shift"]
    rise = _span(f["hill_height"], 0.6, 1.3)
    _paint_ridge(canvas, far, (0.46, 0.085 * rise, 1.15, 0.10 + 0.6 * shift))
    _paint_ridge(canvas, near, (0.53, 0.055 * rise, 1.45, 0.55 - shift))


def _paint_ridge(canvas: Canvas, colour: Tensor, wave: tuple[float, Tensor, float, Tensor]) -> None:
    middle, amplitude, frequency, phase = wave
    angle = 2 * math.pi * (frequency * canvas.x + phase)
    slope = amplitude * 2 * math.pi * frequency * torch.cos(angle)
    # The vertical gap times the cosine of the slope is the distance to the ridge.
    pixels = canvas.size * torch.rsqrt(1 + slope.square())
    canvas.paint((middle - amplitude * torch.sin(angle) - canvas.y) * pixels, colour, SEGMENT_INDEX["hills"])


def _paint_ground(canvas: Canvas, f: dict[str, Tensor]) -> None:
    angle = math.radians(45) + math.radians(85) * f["ground_hue"]
    grass = hue_colour(angle, 0.16, torch.full_like(angle, 0.56))
    depth = ((canvas.y - _HORIZON) / (1 - _HORIZON)).clamp(0, 1)
    canvas.paint((_HORIZON - canvas.y) * canvas.size, grass * (1.06 - 0.18 * depth), SEGMENT_INDEX["ground"])


def _paint_road(canvas: Canvas, f: dict[str, Tensor]) -> None:
    grey = _span(f["road_lightness"], 0.30, 0.52) * _rgb(canvas.x, 0.97, 0.99, 1.08)
    edge = (canvas.y - sum(_ROAD) / 2).abs() - (_ROAD[1] - _ROAD[0]) / 2
    canvas.paint(edge * canvas.size, grey, SEGMENT_INDEX["road"])
    verge = (edge + 0.010).abs() - 0.010
    canvas.paint(verge * canvas.size, 0.55 * grey + 0.45 * _rgb(grey, 0.95, 0.93, 0.88))
    dash = rounded_box(torch.remainder(canvas.x, 0.25) - 0.125, canvas.y - 0.888, 0.060, 0.008, 0.004)
    canvas.paint(dash * canvas.size, 0.35 * grey + 0.65 * _rgb(grey, 0.97, 0.95, 0.88))


def _paint_car(canvas: Canvas, f: dict[str, Tensor]) -> None:
    car = _car_frame(f, canvas)
    _paint_shadow(canvas, car)
    angle = car_hue_angle(f["car_hue"])
    # Yellow looks dull at the lightness at which blue looks bright.
    lightness = _span(f["car_lightness"], 0.44, 0.58) + 0.05 * torch.cos(angle - math.pi / 3)
    colour = hue_colour(angle, 0.36, lightness)
    canvas.paint(car.cabin() * car.pixels, colour * 0.90, SEGMENT_INDEX["cabin"])
    glass = torch.lerp(_rgb(angle, 0.80, 0.91, 0.96), _rgb(angle, 0.20, 0.26, 0.34), f["window_tint"])
    canvas.paint(car.windows() * car.pixels, glass, SEGMENT_INDEX["windows"])
    body = car.body() * car.pixels
    canvas.paint(body, colour, SEGMENT_INDEX["body"])
    canvas.paint(torch.maximum(body, (car.y - 0.068) * car.pixels), colour * 0.72)
    axle = car.axle_distance() * car.pixels
    radius = car.wheel_radius * car.pixels
    canvas.paint(torch.maximum(body, axle - 1.22 * radius), colour * 0.45)
    canvas.paint(axle - radius, _rgb(angle, 0.13, 0.13, 0.16), SEGMENT_INDEX["wheels"])
    canvas.paint(axle - 0.52 * radius, _rgb(angle, 0.78, 0.79, 0.82))
    _paint_lights(canvas, f, car, body)


def _paint_shadow(canvas: Canvas, car: CarFrame) -> None:
    distance = ellipse(car.x, car.y, 1.04 * car.half_length, 0.024) * car.pixels
    black = _rgb(car.x, 0.06, 0.06, 0.10)
    canvas.segments.masked_fill_(distance[:, 0] < 0, SEGMENT_INDEX["shadow"])
    # A penumbra of fixed width in the scene, so that it looks the same at every size.
    canvas.blend((0.5 - distance / car.pixels / 0.016).clamp(0, 1) * 0.55, black)


def _paint_lights(canvas: Canvas, f: dict[str, Tensor], car: CarFrame, body: Tensor) -> None:
    label = SEGMENT_INDEX["lights"]
    height = 0.112
    rear = rounded_box(car.x + car.half_length - 0.006, car.y - height, 0.017, 0.017, 0.008) * car.pixels
    canvas.paint(torch.maximum(rear, body), _rgb(body, 0.80, 0.16, 0.16), label)
    lamp = ellipse(car.x - car.half_length + 0.020, car.y - height + 0.006, 0.024, 0.019) * car.pixels
    off, on = _rgb(body, 0.72, 0.76, 0.80), _rgb(body, 1.0, 0.96, 0.66)
    canvas.paint(torch.maximum(lamp, body), torch.lerp(off, on, f["headlights"]), label)
    # The beam is light, not an object: it has no label.
    reach = car.x - car.half_length
    width = 0.022 + 0.20 * reach + (car.y - height + 0.006 + 0.10 * reach).abs() * -1
    fade = (1 - reach / 0.30).clamp(0, 1) * (reach * 60).clamp(0, 1)
    canvas.blend((width / 0.02).clamp(0, 1) * fade * (0.60 * f["headlights"]), on)

"""What edits do to scenes, where everything is known: effects beside those of the scene's own code, and drift."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..editing import resolve_direction
from ..generators import AbstractGenerator
from ..metrics import drift, edit_effect
from ..metrics.vision import VisionNet, load_vision
from ..solution import Solution
from .codes import code_of_factors
from .scenes import BINARY_FACTORS, CAR_SEGMENTS, FACTOR_INDEX, SceneBatch, render
from .train_directions import AMOUNT

WELL_READ = ("car_hue", "car_size", "car_x", "car_y", "window_tint", "headlights")
"""Factors of the car that the vision network reads best where there are strangers; the facing, which it reads too, is
left out, because it mirrors the whole car."""
MARGIN = 4
"""Pixels around the edited object that do not count as outside it."""
VISIBLE = 0.02
"""Change of a pixel, in [-1, 1], above which the renderer counts as having changed it."""


@functools.lru_cache(maxsize=1)
def vision() -> VisionNet:
    """The network that reads factors off pictures."""
    return load_vision()


class SceneEdits:
    """The edits of one scene: each factor is moved by strength 1 towards the middle of its range, or flipped.

    Effects are relative to the same edit of the scene's own code, the latent whose factors are the scene's. Drift is
    the RMS change outside the edited object, which is the car before and after together with all pixels that the
    renderer changes with the factor, and a margin.

    Args:
        scene: One scene.
        clean: The same scene without strangers.
        generator: Of the demo.
        edited: Names of factors.
        code_seed: Of the coordinates of the own code that mean nothing.
    """

    @torch.no_grad()
    def __init__(
        self,
        scene: SceneBatch,
        clean: SceneBatch,
        generator: AbstractGenerator,
        edited: Sequence[str] = WELL_READ,
        code_seed: int = 0,
    ) -> None:
        self.batch, self.clean_batch = scene, clean
        factors = scene.factors
        self.signs = {name: 1.0 if float(factors[0, FACTOR_INDEX[name]]) < 0.5 else -1.0 for name in edited}
        code = code_of_factors(factors, generator.z_dim, code_seed).to(generator.device, generator.dtype)
        styles = generator.mapping(code)
        plain = _synthesis(generator, styles)
        self.references: dict[str, tuple[Tensor, Tensor]] = {}
        self.pictures: dict[str, tuple[Tensor, Tensor]] = {}
        for name, sign in self.signs.items():
            after = _synthesis(generator, styles + sign * resolve_direction(name, generator))
            self.references[name] = (read_factor(plain, name), read_factor(after, name))
            self.pictures[name] = (plain, after)
        self.outside = {name: self._outside(name) for name in self.signs}

    def _outside(self, name: str) -> Tensor:
        """`[1, 1, H, W]`, 1 where an edit of the factor should change nothing."""
        before = self.clean_batch
        after = render(moved_factors(before.factors, name, self.signs[name]))
        car = torch.tensor(CAR_SEGMENTS)
        touched = torch.isin(before.segments, car) | torch.isin(after.segments, car)
        touched |= ((after.images - before.images).abs() > VISIBLE).any(dim=1)
        return 1 - F.max_pool2d(touched[:, None].float(), 2 * MARGIN + 1, 1, MARGIN)

    @torch.no_grad()
    def measure(self, solution: Solution, within: str | None = None) -> dict[str, Any]:
        """Effect, drift, and change of the strangers: by factor, and their means as ``mean_effect`` and so on.

        Args:
            solution: Of the scene.
            within: Segment outside of which nothing is to change.
        """
        found: dict[str, Any] = {"effect": {}, "drift": {}, "stranger_drift": {}}
        strangers = (self.batch.stranger_masks > 0.5).float()
        before_image = solution.image.cpu().float()
        for name, sign in self.signs.items():
            edited = solution.edit(name, sign, within=within).cpu().float()
            before, after = read_factor(before_image, name), read_factor(edited, name)
            period = vision().config.period(name)
            found["effect"][name] = float(edit_effect(before, after, *self.references[name], period=period))
            pictures = before_image.clamp(-1, 1), edited.clamp(-1, 1)
            found["drift"][name] = float(drift(*pictures, self.outside[name]))
            found["stranger_drift"][name] = float(drift(*pictures, strangers))
        means = {f"mean_{key}": sum(by_factor.values()) / len(by_factor) for key, by_factor in found.items()}
        return {**found, **means}


def read_factor(image: Tensor, name: str) -> Tensor:
    """A factor `[B]` as the vision network sees it in pictures `[B, 3, H, W]`."""
    return vision().factors(image.clamp(-1, 1))[:, FACTOR_INDEX[name]]


def moved_factors(factors: Tensor, name: str, sign: float) -> Tensor:
    """Factors `[B, F]` with one of them moved as far as strength 1 moves it; one of two values is flipped."""
    column, moved = FACTOR_INDEX[name], factors.clone()
    moved[:, column] += sign * (1.0 if name in BINARY_FACTORS else AMOUNT)
    return moved.clamp(0, 1)


def _synthesis(generator: AbstractGenerator, styles: Tensor) -> Tensor:
    image = generator.synthesis(styles)
    assert isinstance(image, Tensor)
    return image.clamp(-1, 1).cpu().float()

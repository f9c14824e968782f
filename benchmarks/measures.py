"""What is read off pictures: quality of a reconstruction, effect and drift of edits, where segments ended up."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from common import Record, Scene, generator, metric
from torch import Tensor

from saminv import Solution, allocate
from saminv.demo import CAR_SEGMENTS, render, sample_scenes
from saminv.demo.codes import code_of_factors
from saminv.demo.scenes import BINARY_FACTORS, FACTOR_INDEX
from saminv.demo.train_directions import AMOUNT
from saminv.editing import resolve_direction
from saminv.metrics import drift, edit_effect, get_metric
from saminv.metrics.editing import change
from saminv.metrics.vision import VisionNet, load_vision
from saminv.segment import Segments

EDITED = ("car_hue", "car_size", "car_x")
"""Factors whose edits are measured."""
MARGIN = 4
"""Pixels around the edited object that do not count as outside it."""
READ, READ_SEED = 96, 70_000
"""Scenes on which it is seen how well factors are read, and their seed."""
VISIBLE = 0.02
"""Change of a pixel, in [-1, 1], above which the renderer counts as having changed it."""


@functools.lru_cache(maxsize=1)
def vision() -> VisionNet:
    """The network that reads factors off pictures."""
    return load_vision()


def reconstruction(image: Tensor, target: Tensor) -> Record:
    """PSNR, SSIM and the demo's perceptual distance of a picture `[1, 3, H, W]`, as it would be saved."""
    image = image.clamp(-1, 1)
    scores = {"psnr": get_metric("psnr"), "ssim": get_metric("ssim"), "perceptual": metric()}
    return {name: float(score.compare(image, target)) for name, score in scores.items()}


def read_factor(image: Tensor, name: str) -> Tensor:
    """A factor `[1]` as the vision network sees it in a picture."""
    return vision().factors(image.clamp(-1, 1))[:, FACTOR_INDEX[name]]


@torch.no_grad()
def reading_quality(names: Sequence[str]) -> dict[str, float]:
    """R^2 of factors as the vision network reads them off renderings with strangers, by name."""
    scenes = sample_scenes(READ, READ_SEED, strangers=True)
    read = vision().factors(scenes.images)
    found = {}
    for name in names:
        truth = scenes.factors[:, FACTOR_INDEX[name]]
        error = change(truth, read[:, FACTOR_INDEX[name]], vision().config.period(name))
        found[name] = float(1 - error.square().mean() / truth.var(correction=0))
    return found


class EditTrial:
    """The edits of one scene: each factor is moved by strength 1 towards the middle of its range, or flipped.

    Effects are relative to the same edit of the scene's own code, the latent whose factors are the scene's. Drift is
    the RMS change outside the edited object, which is the car before and after together with all pixels that the
    renderer changes with the factor, and a margin.
    """

    @torch.no_grad()
    def __init__(self, scene: Scene, edited: Sequence[str] = EDITED) -> None:
        self.scene = scene
        factors = scene.batch.factors
        self.signs = {name: 1.0 if float(factors[0, FACTOR_INDEX[name]]) < 0.5 else -1.0 for name in edited}
        styles = generator().mapping(code_of_factors(factors, generator().z_dim, scene.index))
        plain = _synthesis(styles)
        self.references: dict[str, tuple[Tensor, Tensor]] = {}
        self.pictures: dict[str, tuple[Tensor, Tensor]] = {}
        for name, sign in self.signs.items():
            after = _synthesis(styles + sign * resolve_direction(name, generator()))
            self.references[name] = (read_factor(plain, name), read_factor(after, name))
            self.pictures[name] = (plain.clamp(-1, 1), after.clamp(-1, 1))
        self.outside = {name: self._outside(name) for name in self.signs}

    def _outside(self, name: str) -> Tensor:
        """`[1, 1, H, W]`, 1 where an edit of the factor should change nothing."""
        before = self.scene.clean.batch
        after = render(moved_factors(before.factors, name, self.signs[name]))
        car = torch.tensor(CAR_SEGMENTS)
        touched = torch.isin(before.segments, car) | torch.isin(after.segments, car)
        touched |= ((after.images - before.images).abs() > VISIBLE).any(dim=1)
        return 1 - F.max_pool2d(touched[:, None].float(), 2 * MARGIN + 1, 1, MARGIN)

    @torch.no_grad()
    def measure(self, solution: Solution, skip: str | None = None, within: str | None = None) -> Record:
        """Effect, drift, and change of the strangers by factor.

        Args:
            solution: Of the scene.
            skip: Renders the edits in that way instead.
            within: Segment outside of which nothing is to change.
        """
        if skip is not None:
            options = {**solution.provenance["space_options"], "skip": skip}
            solution = replace(solution, provenance={**solution.provenance, "space_options": options})
        found: Record = {"effect": {}, "drift": {}, "stranger_drift": {}}
        for name, sign in self.signs.items():
            edited = solution.edit(name, sign, within=within)
            before, after = read_factor(solution.image, name), read_factor(edited, name)
            period = vision().config.period(name)
            found["effect"][name] = float(edit_effect(before, after, *self.references[name], period=period))
            pictures = solution.image.clamp(-1, 1), edited.clamp(-1, 1)
            found["drift"][name] = float(drift(*pictures, self.outside[name]))
            found["stranger_drift"][name] = float(drift(*pictures, (self.scene.batch.stranger_masks > 0.5).float()))
        return {**found, **{f"mean_{key}": _mean(found[key]) for key in ("effect", "drift", "stranger_drift")}}


def moved_factors(factors: Tensor, name: str, sign: float) -> Tensor:
    """Factors `[B, F]` with one of them moved as far as strength 1 moves it; one of two values is flipped."""
    column, moved = FACTOR_INDEX[name], factors.clone()
    moved[:, column] += sign * (1.0 if name in BINARY_FACTORS else AMOUNT)
    return moved.clamp(0, 1)


def _synthesis(styles: Tensor) -> Tensor:
    image = generator().synthesis(styles)
    assert isinstance(image, Tensor)
    return image


def _mean(by_factor: Record) -> float:
    return sum(by_factor.values()) / len(by_factor)


def car_area(scene: Scene, solution: Solution) -> tuple[int, int]:
    """Pixels of the car that no stranger covers: how many lie in W+, and how many there are."""
    car = torch.isin(scene.batch.segments, torch.tensor(CAR_SEGMENTS)) & (scene.batch.stranger_masks[:, 0] == 0)
    return int((car & solution.regions.full("W+")[:, 0]).sum()), int(car.sum())


@torch.no_grad()
def agreement(sam: Solution, single: dict[str, Solution], tau: float) -> tuple[int, int]:
    """Segments that the measured allocation puts where the errors of separate inversions would, and all segments."""
    assert sam.segments is not None
    prepared = metric().prepare(sam.target)
    errors = {name: metric().map(single[name].image, prepared) for name in sam.regions.spaces}
    expected = allocate(errors, Segments(sam.segments), sam.regions.spaces, tau)
    ids = torch.unique(sam.segments)
    agreed = [bool((expected.labels == sam.regions.labels)[sam.segments == label].all()) for label in ids]
    return sum(agreed), len(agreed)

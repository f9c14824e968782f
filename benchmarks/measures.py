"""What is read off pictures: quality of a reconstruction, effect and drift of edits, where segments ended up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from common import Record, Scene, generator, metric
from torch import Tensor

from saminv import Solution, allocate
from saminv.demo import CAR_SEGMENTS, sample_scenes
from saminv.demo.edits import SceneEdits, moved_factors, read_factor, vision
from saminv.demo.scenes import FACTOR_INDEX
from saminv.metrics import get_metric
from saminv.metrics.editing import change
from saminv.segment import Segments

__all__ = [
    "EDITED",
    "EditTrial",
    "agreement",
    "car_area",
    "moved_factors",
    "read_factor",
    "reading_quality",
    "reconstruction",
    "vision",
]

EDITED = ("car_hue", "car_size", "car_x")
"""Factors whose edits are measured."""
READ, READ_SEED = 96, 70_000
"""Scenes on which it is seen how well factors are read, and their seed."""


def reconstruction(image: Tensor, target: Tensor) -> Record:
    """PSNR, SSIM and the demo's perceptual distance of a picture `[1, 3, H, W]`, as it would be saved."""
    image = image.clamp(-1, 1)
    scores = {"psnr": get_metric("psnr"), "ssim": get_metric("ssim"), "perceptual": metric()}
    return {name: float(score.compare(image, target)) for name, score in scores.items()}


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


class EditTrial(SceneEdits):
    """The edits of a benchmark's scene."""

    def __init__(self, scene: Scene, edited: Sequence[str] = EDITED) -> None:
        super().__init__(scene.batch, scene.clean.batch, generator(), edited, scene.index)
        self.scene = scene

    def measure(self, solution: Solution, skip: str | None = None, within: str | None = None) -> Record:
        """As :meth:`saminv.demo.edits.SceneEdits.measure`; ``skip`` renders the edits in that way instead."""
        if skip is not None:
            options = {**solution.provenance["space_options"], "skip": skip}
            solution = replace(solution, provenance={**solution.provenance, "space_options": options})
        return super().measure(solution, within)


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

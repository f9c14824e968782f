"""Edits across boundaries that are found from inverted codes alone, and how far their pictures are from real ones.

For each of four attributes of the car, a linear boundary separates the codes of the scenes that have more of it from
those that have less, by the scenes' own factors. Each scene is then moved across, by as much as codes half of the range
apart differ, halved: a quarter of the range, as strength 1 of the bundled directions. All edited pictures together are
held against renderings of the same scenes, strangers included, with the factor changed. The paper has 10,000 codes for
its boundaries; here the scenes of the benchmark are all there are.

Reference:
    Yao et al., 2022, arXiv 2202.02183, section 5.3 and table 2.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
from common import HELD_OUT, Record, Scene
from measures import moved_factors, read_factor, vision
from torch import Tensor

from saminv import InputError, Solution
from saminv.demo import render
from saminv.demo.scenes import FACTOR_INDEX
from saminv.demo.strangers import add_strangers
from saminv.demo.train_directions import AMOUNT
from saminv.editing import LinearDirection, fit_boundary
from saminv.editing.apply import edit_at, solution_styles
from saminv.metrics.editing import change
from saminv.metrics.features import get_extractor
from saminv.metrics.sets import frechet_distance, kernel_distance
from saminv.metrics.statistics import FeatureStatistics

ATTRIBUTES = ("car_hue", "car_size", "car_x", "car_y")
"""Factors that are edited: those of the car that every scene shows to any degree."""
MIDDLE = 0.5


@torch.no_grad()
def across_boundaries(solutions: Sequence[Solution], scenes: Sequence[Scene]) -> Record | None:
    """Accuracy of the boundaries, effect of their edits, and FID and KID of the edited pictures.

    Args:
        solutions: Batches of one method, in the order of the scenes.
        scenes: As many as there are images.

    Returns:
        None where there are too few scenes of a kind to find a boundary.
    """
    factors = torch.cat([scene.batch.factors for scene in scenes])
    codes = torch.cat([solution_styles(solution).cpu() for solution in solutions])
    made, reference = (FeatureStatistics(get_extractor("demo"), keep=True) for _ in range(2))
    accuracies, effects = [], []
    for name in ATTRIBUTES:
        more = factors[:, FACTOR_INDEX[name]] > MIDDLE
        try:
            boundary = fit_boundary(codes.flatten(1), more.double())
        except InputError:
            return None
        accuracies.append(boundary.accuracy)
        along = codes.flatten(1).double() @ boundary.normal
        step = (along[more].mean() - along[~more].mean()) / 2
        direction = LinearDirection((step * boundary.normal).view_as(codes[0]).float())
        signs = torch.where(more, -1.0, 1.0)
        parts = signs.split([len(solution) for solution in solutions])
        edited = torch.cat([edit_at(s, direction, sign).clamp(-1, 1) for s, sign in zip(solutions, parts)])
        before = torch.cat([solution.image for solution in solutions])
        effects += _moved(before, edited, signs, name)
        made.update(edited)
        reference.update(real(scenes, name, signs))
    return {
        "accuracy": statistics.fmean(accuracies),
        "effect": statistics.median(effects),
        **_distances(made, reference),
    }


@torch.no_grad()
def unedited(scenes: Sequence[Scene]) -> Record:
    """FID and KID of the scenes themselves: what no edit at all has."""
    images = torch.cat([scene.batch.images for scene in scenes])
    factors = torch.cat([scene.batch.factors for scene in scenes])
    made, reference = (FeatureStatistics(get_extractor("demo"), keep=True) for _ in range(2))
    for name in ATTRIBUTES:
        signs = torch.where(factors[:, FACTOR_INDEX[name]] > MIDDLE, -1.0, 1.0)
        made.update(images)
        reference.update(real(scenes, name, signs))
    return _distances(made, reference)


def real(scenes: Sequence[Scene], name: str, signs: Tensor) -> Tensor:
    """Renderings `[N, 3, H, W]` of scenes with a factor changed, and their strangers."""
    found = []
    for scene, sign in zip(scenes, signs.tolist()):
        batch = render(moved_factors(scene.batch.factors, name, sign))
        found.append((add_strangers(batch, HELD_OUT + scene.index) if scene.strangers else batch).images)
    return torch.cat(found)


def _moved(before: Tensor, after: Tensor, signs: Tensor, name: str) -> list[float]:
    """How far each picture's factor moved the right way, relative to how far it should have."""
    read = [torch.cat([read_factor(row[None], name) for row in image]) for image in (before, after)]
    return (signs * change(*read, vision().config.period(name)) / AMOUNT).tolist()


def _distances(made: FeatureStatistics, reference: FeatureStatistics) -> Record:
    """FID, and KID over all pictures at once."""
    moments = [part for found in (made, reference) for part in (found.mean, found.covariance())]
    vectors = [found.vectors().double() for found in (made, reference)]
    return {"fid": frechet_distance(*moments), "kid": float(kernel_distance(*vectors))}

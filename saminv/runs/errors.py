"""Data for an invertibility network: every picture inverted into each space alone, and the errors kept as maps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .._arguments import make_recipe
from .._errors import InputError
from .._sources import collect
from ..metrics._base import AbstractMetric
from ..solution import Solution
from ..train.errors import RESULTS, save_errors
from .folder import RunReport, run

BUILD_STEPS = 100
"""Steps of each inversion: errors of W+ are those of a long one, errors of feature layers somewhat larger."""
ROUND = 64


@dataclass(frozen=True)
class ErrorWriter:
    """Writes the target and the error map of an inversion into one space, as a network is trained on them.

    Attributes:
        folder: Of the run.
        space: That was inverted into.
        steps: Of the inversion.
        metric: Whose map is the error.
    """

    folder: Path
    space: str
    steps: int
    metric: AbstractMetric

    @torch.no_grad()
    def __call__(self, name: str, solution: Solution) -> dict[str, str]:
        error = self.metric.map(solution.image, self.metric.prepare(solution.target))
        path = self.folder / RESULTS / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_errors(
            path,
            solution.target[0],
            error[0],
            space=self.space,
            fingerprint=solution.provenance["fingerprint"],
            metric=self.metric.name,
            steps=self.steps,
            psnr=float(solution.stats["psnr"][0]),
        )
        return {"error": path.relative_to(self.folder).as_posix()}


def build_errors(
    images: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    spaces: Sequence[str] | None = None,
    *,
    steps: int = BUILD_STEPS,
    limit: int | None = None,
    shuffle_seed: int | None = 0,
    **settings: Any,
) -> dict[str, RunReport]:
    """Invert pictures into each space alone and keep the error maps (Eq. 3.1); the same call goes on where it stopped.

    Pictures are taken in rounds through all spaces, so what is there can be trained on at any time.

    Args:
        images: Files and folders of pictures like those that will be inverted.
        out: Folder of the data, with one run for each space.
        spaces: To invert into; the generator's default where None. Feature layers are not masked.
        steps: Of each inversion.
        limit: Number of pictures.
        shuffle_seed: Of their order; None keeps the natural one.
        settings: As for :func:`saminv.runs.run`.

    Returns:
        A report for each space.

    Raises:
        InputError: If a space is named twice or is neither a style space nor a feature layer.

    Reference:
        Parmar, 2022, CMU-RI-TR-22-26 (arXiv 2206.08357), section 3.1.
    """
    unwanted = {"tau", "invertibility", "segmenter", "write", "keep", "sequence"} & set(settings)
    if unwanted:
        raise InputError(f"Inversions into one space have no {', '.join(sorted(unwanted))}; leave it out.")
    asked = {key: value for key, value in settings.items() if key not in ("batch", "workers", "retry", "progress")}
    recipe = make_recipe(steps=steps, **asked)
    names = list(recipe.generator.default_spaces if spaces is None else spaces)
    if len(set(names)) != len(names):
        raise InputError(f"A space is named twice: {', '.join(names)}.")
    for space in names:
        _check_single(space, asked)
    folder = Path(out)
    total = len(collect(images, out=folder, limit=limit))
    reports: dict[str, RunReport] = {}
    for upto in [*range(ROUND, total, ROUND), total]:
        for space in names:
            place = folder / space
            write = ErrorWriter(place, space, steps, recipe.metric)
            plain = {**settings, "segmenter": "none", "invertibility": "measured"}
            reports[space] = run(
                images, place, [space], write=write, steps=steps, limit=upto, shuffle_seed=shuffle_seed, **plain
            )
    return reports


def _check_single(space: str, settings: dict[str, Any]) -> None:
    """Raise ``InputError`` unless a picture can be inverted into the space alone."""
    found = make_recipe([space], **settings).candidates
    if found != (space,):
        raise InputError(f"{space} takes no part in the allocation; build errors of style spaces or feature layers.")

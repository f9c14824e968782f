"""Directions by supervised regression: each moves one attribute and leaves the predictions of all others alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ..generators import AbstractGenerator
from ._samples import Scores, sample_codes, scored
from .change import LinearDirection, check_slots
from .sets import DirectionSet

SAMPLES, LEAST = 4000, 16
RIDGE = 1e-3
"""Added to the diagonal of the covariance of w, in mean variances."""


@dataclass(frozen=True)
class Fit:
    """Directions `[F, D]`, each of which moves its own attribute by 1, and the R^2 `[F]` of the predictions."""

    directions: Tensor
    quality: Tensor


def regress(codes: Tensor, attributes: Tensor) -> Fit:
    """Regress attributes `[N, F]` on codes `[N, D]` and turn the gradients into directions.

    With the covariance C of w and the gradients G (columns), the directions are the columns of C G (G' C G)^-1: each
    moves its own prediction by 1, no other one, and is the shortest such change in units of the spread of w. The R^2
    are those on the last quarter of the samples, which the fit does not see.

    Raises:
        InputError: If there are fewer than 16 samples, an attribute is the same for all of them or for the last
            quarter, or one follows from the others.
    """
    if len(codes) < LEAST:
        raise InputError(
            f"There are {len(codes)} samples; a regression needs {LEAST}, and better some for each number of w."
        )
    w, y = codes.double().cpu(), attributes.double().cpu()
    w, y = w - w.mean(dim=0), y - y.mean(dim=0)
    train = slice(0, 3 * len(w) // 4)
    if not all(bool((y[part].std(dim=0) > 0).all()) for part in (train, slice(train.stop, None))):
        raise InputError(
            "An attribute is the same for all samples, or for the last quarter, on which the fit is tried; there is no "
            "direction along it. Take more samples."
        )
    covariance, shared = w[train].t() @ w[train] / len(w[train]), w[train].t() @ y[train] / len(w[train])
    ridge = RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    gradients = torch.linalg.solve(covariance + ridge, shared)
    error = (w @ gradients - y)[train.stop :].square().mean(dim=0)
    quality = 1 - error / y[train.stop :].square().mean(dim=0)
    moved = covariance @ gradients
    try:
        return Fit(torch.linalg.solve(gradients.t() @ moved, moved.t()), quality)
    except torch.linalg.LinAlgError as error_:
        raise InputError("An attribute follows from the others, so it cannot be moved alone; leave it out.") from error_


def regression_directions(
    generator: AbstractGenerator,
    scores: Mapping[str, Scores],
    *,
    samples: int = SAMPLES,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    label: Any = None,
    name: str = "regression",
    progress: bool = False,
) -> DirectionSet:
    """Directions along attributes, each of which leaves the others alone.

    Args:
        generator: Any.
        scores: By attribute, labels or scores `[samples]` of the samples of ``seed``, or a function that reads them off
            images.
        samples: Number of random samples.
        layers: Style slots that the directions change; all where None.
        seed: Of the samples.
        label: Class of a conditional generator.
        name: Of the set.
        progress: Show a bar where pictures are scored by functions.

    Returns:
        A direction for each attribute, whose strength 1 is a standard deviation of the attribute. Values: "r2" (of the
        prediction on samples held out), "deviation" (length in w).

    Raises:
        InputError: If the scores do not fit, or an attribute cannot be moved alone.
    """
    slots = list(range(generator.num_styles)) if layers is None else check_slots(layers, generator.num_styles)
    codes = sample_codes(generator, samples, seed, label)
    found = scored(generator, codes, scores, progress)
    attributes = torch.stack(list(found.values()), dim=1)
    fit = regress(codes, attributes)
    rows = fit.directions * attributes.std(dim=0)[:, None]
    whole = torch.zeros(len(rows), generator.num_styles, generator.style_dim)
    whole[:, slots] = rows.float()[:, None]
    return DirectionSet(
        name,
        "regression",
        generator.fingerprint,
        {name: LinearDirection(row) for name, row in zip(found, whole)},
        tuple(slots),
        {"r2": fit.quality.tolist(), "deviation": rows.norm(dim=1).tolist()},
        {"samples": samples, "seed": seed},
    )

"""InterFaceGAN: the normal of the hyperplane that separates samples with an attribute from those without.

Needs scikit-learn, the extra ``directions``.

Reference:
    Shen et al., 2020, arXiv 2005.09635, sections 3.2 and 3.3 (conditional manipulation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError, MissingExtraError
from ..generators import AbstractGenerator
from ._samples import Scores, sample_codes, scored, spread_along
from .change import LinearDirection, check_slots
from .sets import DirectionSet

SAMPLES = 2000
HELD_OUT = 0.3
"""Part of the samples on which a boundary is tried."""
EXTREMES = 0.25
"""Part of the samples with the highest scores, and part with the lowest, that a boundary is fitted to."""
_LEAST = 4


@dataclass(frozen=True, eq=False)
class Boundary:
    """A hyperplane in w: a sample is positive where ``w @ normal + offset > 0``.

    Attributes:
        normal: Of unit length `[D]`.
        offset: Minus the distance of the hyperplane from 0.
        accuracy: Share of held-out samples on their right side.
        held_out: Number of these.
    """

    normal: Tensor
    offset: float
    accuracy: float
    held_out: int

    def classify(self, codes: Tensor) -> Tensor:
        """Whether codes `[N, D]` lie on the positive side, bool `[N]`."""
        return codes.to(self.normal) @ self.normal + self.offset > 0


def fit_boundary(codes: Tensor, scores: Tensor, *, extremes: float = EXTREMES, seed: int = 0) -> Boundary:
    """Fit a linear support vector machine.

    Scores of two values are labels, and all samples count. Of other scores, the samples with the highest and the lowest
    do. A part of these is held out to try the boundary on.

    Args:
        codes: `[N, D]`.
        scores: `[N]`, labels or scores.
        extremes: Part of the samples at either end, in (0, 0.5].
        seed: Of the choice of what is held out.

    Raises:
        InputError: If the shapes do not fit, there are fewer than four samples of a kind, or all scores are alike.
        MissingExtraError: If scikit-learn is not installed.
    """
    if codes.dim() != 2 or tuple(scores.shape) != (len(codes),):
        raise InputError(f"codes must be [N, D] and scores [N]; got {list(codes.shape)} and {list(scores.shape)}.")
    if not 0 < extremes <= 0.5:
        raise InputError(f"extremes is {extremes}; it is a part of the samples from 0 to 0.5.")
    positive, negative = _kinds(scores.detach().cpu().double(), extremes)
    if min(len(positive), len(negative)) < _LEAST:
        raise InputError(
            f"There are {len(positive)} samples with the attribute and {len(negative)} without; {_LEAST} of each are "
            "needed. Take more samples, or another score."
        )
    source = torch.Generator().manual_seed(seed)
    parts = [kind[torch.randperm(len(kind), generator=source)] for kind in (positive, negative)]
    held = [max(1, round(HELD_OUT * len(part))) for part in parts]
    train = torch.cat([part[number:] for part, number in zip(parts, held)])
    tried = torch.cat([part[:number] for part, number in zip(parts, held)])
    truth = torch.zeros(len(codes), dtype=torch.bool)
    truth[positive] = True
    data = codes.detach().cpu().double()
    machine = _machine().fit(data[train].numpy(), truth[train].numpy())
    weights = torch.from_numpy(machine.coef_[0].copy())
    length = weights.norm().clamp_min(1e-30)
    found = Boundary(weights / length, float(machine.intercept_[0] / length), 0.0, len(tried))
    right = found.classify(data[tried]) == truth[tried]
    return Boundary(found.normal, found.offset, float(right.double().mean()), len(tried))


def _kinds(scores: Tensor, extremes: float) -> tuple[Tensor, Tensor]:
    """Indices of the samples with the attribute, and of those without."""
    values = scores.unique()
    if len(values) < 2:
        raise InputError("All scores are alike, so nothing separates the samples.")
    if len(values) == 2:
        return (scores == values[1]).nonzero().flatten(), (scores == values[0]).nonzero().flatten()
    order = scores.argsort(stable=True)
    number = max(1, int(extremes * len(scores)))
    return order[-number:], order[:number]


def _machine() -> Any:
    try:
        from sklearn.svm import SVC
    except ImportError as error:
        raise MissingExtraError(
            'InterFaceGAN boundaries need scikit-learn: pip install "saminv[directions]". '
            "SeFa, GANSpace and regression work without it."
        ) from error
    return SVC(kernel="linear")


def conditioned(normal: Tensor, others: Sequence[Tensor]) -> Tensor:
    """A normal `[D]` of unit length without what it shares with others: it lies in all of their hyperplanes.

    For one other it is n - (n'm) m of unit length. Moving along it leaves the scores of the others where they are.

    Raises:
        InputError: If nothing is left.
    """
    if not len(others):
        return normal
    basis = torch.stack([other.to(normal) for other in others], dim=1).double()
    left = normal.double()
    left = left - basis @ torch.linalg.lstsq(basis.cpu(), left.cpu()[:, None]).solution[:, 0].to(left)
    length = left.norm()
    if float(length) < 1e-6 * float(normal.norm()):
        raise InputError("The condition leaves nothing of the direction: both attributes have the same boundary.")
    return (left / length).to(normal)


def interfacegan_directions(
    generator: AbstractGenerator,
    scores: Mapping[str, Scores],
    *,
    conditions: Mapping[str, Sequence[str]] | None = None,
    samples: int = SAMPLES,
    extremes: float = EXTREMES,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    label: Any = None,
    name: str = "interfacegan",
    progress: bool = False,
) -> DirectionSet:
    """Directions across the boundaries of attributes.

    Args:
        generator: Any.
        scores: By attribute, labels or scores `[samples]` of the samples of ``seed``, or a function that reads them off
            images.
        conditions: By attribute, the attributes that it should leave alone.
        samples: Number of random samples.
        extremes: As for :func:`fit_boundary`.
        layers: Style slots that the directions change; all where None.
        seed: Of the samples.
        label: Class of a conditional generator.
        name: Of the set.
        progress: Show a bar where pictures are scored by functions.

    Returns:
        A direction for each attribute, whose strength 1 is a standard deviation of w along it. Values: "accuracy" (of
        the boundary on held-out samples), "deviation".

    Raises:
        InputError: If scores do not fit, or a condition names no attribute.
        MissingExtraError: If scikit-learn is not installed.
    """
    conditions = conditions or {}
    unknown = [other for name, others in conditions.items() for other in (name, *others) if other not in scores]
    if unknown:
        raise InputError(f"conditions names {unknown[0]!r}, which has no scores. Scores: {', '.join(scores)}.")
    _machine()
    slots = list(range(generator.num_styles)) if layers is None else check_slots(layers, generator.num_styles)
    codes = sample_codes(generator, samples, seed, label)
    found = scored(generator, codes, scores, progress)
    boundaries = {name: fit_boundary(codes, values, extremes=extremes, seed=seed) for name, values in found.items()}
    normals = {name: boundary.normal for name, boundary in boundaries.items()}
    rows = torch.stack([conditioned(n, [normals[o] for o in conditions.get(name, ())]) for name, n in normals.items()])
    deviation = spread_along(generator, rows.to(generator.device), label).cpu()
    whole = torch.zeros(len(rows), generator.num_styles, generator.style_dim)
    whole[:, slots] = (rows * deviation[:, None]).float()[:, None]
    return DirectionSet(
        name,
        "interfacegan",
        generator.fingerprint,
        {name: LinearDirection(row) for name, row in zip(normals, whole)},
        tuple(slots),
        {"accuracy": [b.accuracy for b in boundaries.values()], "deviation": deviation.tolist()},
        {
            "samples": samples,
            "extremes": extremes,
            "seed": seed,
            "conditions": {name: list(others) for name, others in conditions.items()},
            "held_out": [b.held_out for b in boundaries.values()],
        },
    )

"""How far an edit may go: the largest step that keeps the code likely and, if asked for, the identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._errors import InputError
from ..generators import AbstractGenerator
from ..metrics._base import AbstractMetric, get_metric
from ..solution import Solution
from ..spaces.priors import style_distance
from .apply import edit_at, solution_styles
from .channels import pulled_back
from .references import find_direction

SAMPLES = 1000
"""Random samples that say how far codes lie from the mean."""
STEPS, HALVINGS = 24, 12
"""How finely strengths are looked through, and how often the last step is halved."""
STEPS_WITH_PICTURES, HALVINGS_WITH_PICTURES = 8, 5


@dataclass(frozen=True)
class Bounds:
    """What an edit has to keep.

    Attributes:
        quantile: The prior's distance of the edited code may be that of this share of random samples ...
        slack: ... or this multiple of the distance before the edit, whichever is more.
        metric: Compares the edited picture with the unedited one, for instance by identity; None for no such bound.
        limit: What the metric may say at worst: most of a distance, least of a similarity.
        largest: Strength beyond which nothing is tried.
    """

    quantile: float = 0.99
    slack: float = 1.1
    metric: str | AbstractMetric | None = None
    limit: float | None = None
    largest: float = 10.0

    def __post_init__(self) -> None:
        if not (0 < self.quantile <= 1 and self.slack >= 1 and self.largest > 0):
            raise InputError(f"Bounds need quantile in (0, 1], slack >= 1 and largest > 0; got {self}.")
        if (self.metric is None) != (self.limit is None):
            raise InputError("A bound by a metric needs both, metric= and limit=.")


@torch.no_grad()
def safe_strength(solution: Solution, direction: Any, sign: float = 1.0, bounds: Bounds | None = None) -> Tensor:
    """The largest strength up to which an edit stays within bounds, for each image.

    The prior's distance is that of Eq. 3.6: the Mahalanobis distance of LeakyReLU_5(w) from its mean, root mean square
    over the style slots; where blocks read noise and a class embedding, that of both from their means. Edits of
    channels count by the change of the styles that comes nearest to them.

    Args:
        solution: Of B images, with its generator.
        direction: As for :meth:`saminv.Solution.edit`.
        sign: 1 or -1, towards which side.
        bounds: The default asks for the prior alone.

    Returns:
        `[B]`, from 0 to ``bounds.largest``, not negative whatever the sign; 0 where the first step breaks a bound.

    Raises:
        InputError: If the solution has no generator, or the direction is unknown.
    """
    bounds = bounds or Bounds()
    generator = solution.generator
    if generator is None:
        raise InputError("This solution has no generator; load it with Solution.load(path, generator=...).")
    label = solution.provenance.get("label")
    found, styles = find_direction(direction, generator, label), solution_styles(solution)
    side = 1.0 if sign >= 0 else -1.0
    own = style_distance(generator, styles, label)
    bound = torch.maximum(_sample_distance(generator, bounds.quantile, label).to(own), bounds.slack * own)

    def likely(strength: Tensor) -> Tensor:
        moved = pulled_back(generator, found.change(styles, side * strength))
        return style_distance(generator, styles + moved, label) <= bound

    strength = _last_within(likely, torch.full_like(own, bounds.largest), STEPS, HALVINGS)
    if bounds.metric is None or bounds.limit is None:
        return strength
    metric = get_metric(bounds.metric)
    prepared = metric.prepare(solution.image.clamp(-1, 1))

    def alike(strength: Tensor) -> Tensor:
        edited = edit_at(solution, found, side * strength)
        score = metric(torch.nan_to_num(edited).clamp(-1, 1), prepared)
        return score >= bounds.limit if metric.higher_is_better else score <= bounds.limit

    return _last_within(alike, strength, STEPS_WITH_PICTURES, HALVINGS_WITH_PICTURES)


def _sample_distance(generator: AbstractGenerator, quantile: float, label: Any) -> Tensor:
    """The distance within which a share of random samples lie, of all classes where blocks read their embeddings."""
    if "class" in generator.sites:
        classes = torch.arange(SAMPLES, device=generator.device) * generator.label_dim // SAMPLES
        label = F.one_hot(classes, generator.label_dim)
    styles = generator.mapping(generator.sample_z(SAMPLES, seed=2), label)
    return style_distance(generator, styles, label).quantile(quantile)


def _last_within(within: Callable[[Tensor], Tensor], largest: Tensor, steps: int, halvings: int) -> Tensor:
    """The largest strengths `[B]` such that all smaller ones that were tried are within bounds too."""
    good = torch.zeros_like(largest)
    going = torch.ones_like(largest, dtype=torch.bool)
    for k in range(1, steps + 1):
        strength = largest * (k / steps)
        going = going & within(strength)
        good = torch.where(going, strength, good)
        if not bool(going.any()):
            break
    bad = torch.minimum(good + largest / steps, largest)
    for _ in range(halvings):
        middle = (good + bad) / 2
        ok = within(middle)
        good, bad = torch.where(ok, middle, good), torch.where(ok, bad, middle)
    return good

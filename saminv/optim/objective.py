"""What is minimised: reconstruction losses at a loss size, and weights of the regularisers.

Reference:
    Parmar, 2022, CMU-RI-TR-22-26 (arXiv 2206.08357), Eq. 3.5 and 3.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real

import torch
from torch import Tensor

from .._errors import InputError
from ..images import area_resize
from ..metrics._base import AbstractMetric, Prepared

PUBLISHED_WEIGHTS = {
    "l2": 1.0,
    "perceptual": 1.0,
    "prior": 1e-8,
    "deviation": 1e-3,
    "class": 1e-2,
    "feature": 5.0,
    "padding": 1e-4,
    "twin": 1.0,
    "code": 1e-2,
}
PAPER_WEIGHTS = {
    "l2": 15.0,
    "perceptual": 1.0,
    "prior": 5e-6,
    "deviation": 1e-4,
    "class": 1e-2,
    "feature": 3e-5,
    "noise": 1e-2,
    "padding": 1e-4,
    "twin": 1.0,
    "code": 1e-2,
    "correlation": 0.0,
    "weights": 0.0,
    "locality": 0.0,
    "domain": 0.0,
}
REGULARISERS = (
    "prior",
    "deviation",
    "class",
    "feature",
    "noise",
    "correlation",
    "padding",
    "code",
    "weights",
    "locality",
    "domain",
)
RESERVED = ("l2", "twin", *REGULARISERS)
"""Names of losses and regularisers that are no metrics."""


@dataclass(frozen=True)
class Targets:
    """What an objective keeps of B targets.

    Attributes:
        view: As they are compared `[B, 3, h, w]`.
        features: What each metric keeps of them, by the name of its loss.
    """

    view: Tensor
    features: dict[str, Prepared]

    def select(self, rows: Tensor) -> Targets:
        """The targets ``rows`` `[N]`."""
        return Targets(self.view[rows], {name: kept.select(rows) for name, kept in self.features.items()})

    def join(self, other: Targets) -> Targets:
        """These targets and then the other ones, of the same objective."""
        features = {name: kept.join(other.features[name]) for name, kept in self.features.items()}
        return Targets(torch.cat([self.view, other.view]), features)


@dataclass(frozen=True)
class Objective:
    """Weighted sum of an L2 loss, a perceptual loss, further losses and the regularisers of the spaces.

    Attributes:
        metric: Perceptual metric, or None for L2 alone.
        weights: Weight of each part by name: "l2", "perceptual", and the names that spaces give their penalties.
            A penalty without a weight is left out.
        loss_size: Longer side in pixels at which images are compared (area down-sampling); None compares them as
            they are.
        clamp: Clamp the compared image to [-1, 1], as published. The gradient is zero beyond.
        losses: Further metrics by the name of their weight; "perceptual" among them takes the place of ``metric``.
    """

    metric: AbstractMetric | None = None
    weights: Mapping[str, float] = field(default_factory=lambda: dict(PAPER_WEIGHTS))
    loss_size: int | None = 256
    clamp: bool = False
    losses: Mapping[str, AbstractMetric] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, loss in self.losses.items():
            if not isinstance(loss, AbstractMetric) or loss.higher_is_better or name in RESERVED:
                raise InputError(
                    f"losses are metrics that become smaller with likeness, by names other than {', '.join(RESERVED)}; "
                    f"{name!r} is {getattr(loss, 'name', type(loss).__name__)}."
                )
        for name, weight in self.weights.items():
            if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= weight < float("inf"):
                raise InputError(f"The weight of {name!r} must be a number from 0 up, got {weight!r}.")
        if not (self.weights.get("l2") or self.weights.get("perceptual")):
            raise InputError("The weights of 'l2' and 'perceptual' are both 0, so nothing compares with the picture.")

    def view(self, image: Tensor) -> Tensor:
        """The image as it is compared: `[B, 3, H, W]` -> `[B, 3, h, w]`."""
        height, width = image.shape[-2:]
        if self.loss_size is not None and max(height, width) > self.loss_size:
            scale = self.loss_size / max(height, width)
            image = area_resize(image, (round(height * scale), round(width * scale)))
        return image.clamp(-1, 1) if self.clamp else image

    @property
    def metrics(self) -> dict[str, AbstractMetric]:
        """The metrics that count, by the name of their weight."""
        usual = {} if self.metric is None else {"perceptual": self.metric}
        return {name: metric for name, metric in {**usual, **self.losses}.items() if self.weights.get(name, 0)}

    def prepare(self, target: Tensor) -> Targets:
        """Compute once what is needed of the targets `[B, 3, H, W]`."""
        view = self.view(target)
        return Targets(view, {name: metric.prepare(view) for name, metric in self.metrics.items()})

    def reconstruction(self, image: Tensor, targets: Targets, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Unweighted reconstruction losses by name, each `[B]` (Eq. 3.5).

        Args:
            image: `[B, 3, H, W]`.
            targets: Of B images.
            dtype: Type of the features of metrics that compare such; their own where None.
        """
        view = self.view(image)
        parts = {"l2": (view - targets.view).square().mean(dim=(1, 2, 3))}
        for name, metric in self.metrics.items():
            metric = metric if dtype is None else metric.with_features(dtype)
            parts[name] = metric(view, targets.features[name])
        return parts

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of the parts, `[B]` (Eq. 3.8)."""
        terms = [self.weights[name] * value for name, value in parts.items() if self.weights.get(name, 0)]
        return torch.stack(terms).sum(dim=0)

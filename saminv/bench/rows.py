"""Rows of a comparison: what a method has reached, as means with standard errors and picture by picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..metrics import METRICS, get_metric, get_set_metric, score
from ..metrics.sets import AbstractFeatureDistance

LOWER, HIGHER = "lower", "higher"
"""Which way is better."""
Pairs = Iterator[tuple[str, Tensor, Tensor]]
"""Name, reconstruction and target of picture after picture, `[1, 3, H, W]` each."""
Each = Mapping[str, Mapping[str, float]]
"""Values of single pictures by the name of the figure, then by that of the picture."""


@dataclass(frozen=True)
class Row:
    """What a method has reached with a number of steps.

    Attributes:
        method: As it was asked for.
        steps: Of each inversion; None for pictures of another program.
        images: How many it has done.
        means: Of each metric over the pictures; of a metric of sets, its value.
        errors: Standard error of the mean of each metric that has one.
        seconds: Per picture, batches shared out; None where it is unknown.
        failed: Pictures that it could not do.
        each: Values of the single pictures, for metrics that have them.
    """

    method: str
    steps: int | None
    images: int
    means: dict[str, float]
    errors: dict[str, float]
    seconds: float | None
    failed: int = 0
    each: Each = field(default_factory=dict, repr=False)

    def with_values(self, each: Each) -> Row:
        """The row with further figures, of which the single pictures' values are known."""
        means, errors = summary(each)
        return replace(
            self, means={**self.means, **means}, errors={**self.errors, **errors}, each={**self.each, **each}
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: means by the names of the metrics, standard errors as ``NAME_se``; None if infinite."""
        means = {name: finite(value) for name, value in self.means.items()}
        errors = {f"{name}_se": value for name, value in self.errors.items()}
        more = {"steps": self.steps, "images": self.images, "failed": self.failed, "seconds": self.seconds}
        return {"method": self.method, **more, **means, **errors}


@dataclass
class QualityReport:
    """Methods times pictures.

    Attributes:
        generator: Its name, or its fingerprint.
        fingerprint: Of the generator.
        device: The machine, in words.
        pictures: How many were asked for.
        image_size: (height, width) of the generator's pictures.
        sources: What each picture is, by its name: the hash of its file, or which scene of the demo world.
        settings: What else was asked for and can be said in a word or a number.
        protocol: Name of the paper whose protocol this is, if it is one.
        notes: What a reader has to know beside the definitions.
        definitions: What each figure is, by its name.
        better: "higher" or "lower" of each metric, by its name.
        rows: One for each method and number of steps.
        sheet: Pictures of some scenes by all methods `[1, 3, H', W']`.
    """

    generator: str
    fingerprint: str
    device: str
    pictures: int
    image_size: tuple[int, int]
    sources: dict[str, str]
    settings: dict[str, Any]
    protocol: str | None
    notes: list[str]
    definitions: dict[str, str]
    better: dict[str, str]
    rows: list[Row]
    sheet: Tensor | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a row has its pictures' values as ``each``, in the order of ``sources``."""
        kept = {name: value for name, value in vars(self).items() if name not in ("rows", "sheet")}
        return {**kept, "image_size": list(self.image_size), "rows": [self._row(row) for row in self.rows]}

    def _row(self, row: Row) -> dict[str, Any]:
        each = {
            metric: [finite(found.get(name)) for name in self.sources] for metric, found in row.each.items() if found
        }
        return {**row.to_dict(), "each": each}


def finite(value: float | None) -> float | None:
    """A number as JSON has it."""
    return value if value is not None and math.isfinite(value) else None


def summary(each: Each) -> tuple[dict[str, float], dict[str, float]]:
    """Means of figures over their pictures, and the standard errors of those that have one."""
    known = {name: [value for value in found.values() if not math.isnan(value)] for name, found in each.items()}
    means = {name: statistics.fmean(found) for name, found in known.items() if found}
    # The PSNR of equal pictures is infinite.
    spread = {name: known[name] for name, value in means.items() if len(known[name]) > 1 and math.isfinite(value)}
    return means, {name: statistics.stdev(found) / math.sqrt(len(found)) for name, found in spread.items()}


def score_pairs(
    method: str,
    steps: int | None,
    pairs: Pairs,
    metrics: Sequence[str],
    seconds: float | None = None,
    failed: int = 0,
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> Row:
    """Scores over all pictures, one in memory at a time.

    Args:
        method, steps, seconds, failed: Of the row.
        pairs: Name, reconstruction and target of each picture.
        metrics: Names of metrics per picture and of sets.
        sizes: (height, width) at which single metrics compare; the pictures' own for others.
    """
    single = {name: get_metric(name) for name in metrics if name in METRICS}
    sets = {name: get_set_metric(name) for name in metrics if name not in METRICS}
    each: dict[str, dict[str, float]] = {name: {} for name in single}
    count = 0
    for picture, image, target in pairs:
        made, wanted = image.float().clamp(-1, 1), target.float()
        count += 1
        for name, metric in single.items():
            size = (sizes or {}).get(name)
            each[name][picture] = float(score(at_size(made, size), at_size(wanted, size), [metric])[metric.name])
        for of_set in sets.values():
            of_set.update(made)
            if isinstance(of_set, AbstractFeatureDistance):
                of_set.update_reference(wanted)
    means, errors = summary(each)
    means |= {name: float(metric.compute()) for name, metric in sets.items() if count}
    return Row(method, steps, count, means, errors, seconds, failed, each)


def at_size(image: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Pictures `[B, 3, H, W]` at another size, bilinearly with antialiasing as Pillow does it."""
    if size is None or tuple(image.shape[-2:]) == tuple(size):
        return image
    return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)


def definition(name: str, size: tuple[int, int] | None = None) -> tuple[str, str]:
    """What a metric is, in a sentence or two, and which way is better."""
    metric: Any = get_metric(name) if name in METRICS else get_set_metric(name)
    first = (type(metric).__doc__ or "").strip().split("\n\n")[0]
    better = HIGHER if getattr(metric, "higher_is_better", False) else LOWER
    resized = "" if size is None else f" Compared at {size[1]} x {size[0]}, resized bilinearly with antialiasing."
    features = f" Features: {metric.extractor.what}." if isinstance(metric, AbstractFeatureDistance) else ""
    return f"{' '.join(first.split())} Pictures in [-1, 1], clamped; {better} is better.{resized}{features}", better

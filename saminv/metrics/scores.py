"""All metrics of a table in one call: pictures, what they should be, names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor

from .._errors import InputError
from ._base import METRICS, AbstractMetric, check_images, get_metric
from .sets import SET_METRICS, AbstractFeatureDistance, AbstractSetMetric, get_set_metric

BATCH = 8
USUAL = ("psnr", "ssim", "mse")

Metric = AbstractMetric | AbstractSetMetric


@torch.no_grad()
def score(
    pictures: Tensor, targets: Tensor, metrics: Sequence[str | Metric] = USUAL, *, batch: int = BATCH
) -> dict[str, Tensor]:
    """Compare pictures with their targets by several metrics, per picture and per set.

    Both are clamped to [-1, 1] first, which is what a file shows. Pictures pass through each metric in batches, on the
    metric's device.

    Args:
        pictures: `[B, 3, H, W]`, such as reconstructions; of a sequence, the frames in order.
        targets: Of the same shape; the reference set of FID and KID, unless such a metric was given another.
        metrics: Names of :data:`saminv.metrics.METRICS` and :data:`saminv.metrics.SET_METRICS`, or metrics, which
            are left as they are.
        batch: Pictures at a time.

    Returns:
        By the name of the metric, on the CPU: `[B]` of a metric per picture, `[]` of a metric of sets.

    Raises:
        InputError: If the shapes differ, or a metric is unknown or named twice, or the pictures are too small or too
            few for one.
        WeightsError: If a metric needs weights that are neither here nor can be fetched.
    """
    check_images(pictures, "pictures")
    check_images(targets, "targets")
    if pictures.shape != targets.shape or not len(pictures):
        raise InputError(
            f"The pictures are {list(pictures.shape)} and the targets {list(targets.shape)}; they must have one shape, "
            "and there must be some."
        )
    if isinstance(metrics, (str, AbstractMetric, AbstractSetMetric)):
        metrics = [metrics]
    if batch < 1:
        raise InputError(f"batch={batch} given; at least one picture at a time is needed.")
    built = [_build(metric) for metric in metrics]
    names = [metric.name for metric in built]
    if len(set(names)) < len(names):
        raise InputError(f"A metric is named twice among {', '.join(names)}.")
    pairs = [
        (picture.clamp(-1, 1), target.clamp(-1, 1))
        for picture, target in zip(pictures.split(batch), targets.split(batch))
    ]
    return {metric.name: _score(metric, pairs) for metric in built}


def _score(metric: Metric, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    if isinstance(metric, AbstractMetric):
        place = next(metric.parameters(), pairs[0][0]).device
        return torch.cat([metric.compare(a.to(place), b.to(place)).cpu() for a, b in pairs])
    for picture, target in pairs:
        metric.update(picture)
        if isinstance(metric, AbstractFeatureDistance) and not metric.given:
            metric.update_reference(target)
    return torch.tensor(metric.compute(), dtype=torch.float64)


def _build(metric: str | Metric) -> Metric:
    """The metric of a name, or the same metric without what it has seen."""
    if isinstance(metric, AbstractSetMetric):
        return metric.fresh()
    if isinstance(metric, AbstractMetric) or metric in METRICS:
        return get_metric(metric)
    if metric in SET_METRICS:
        return get_set_metric(metric)
    known = [*METRICS, *SET_METRICS]
    close = difflib.get_close_matches(str(metric), known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise InputError(f"Unknown metric {metric!r}. Known: {', '.join(known)}.{hint}")

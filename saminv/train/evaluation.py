"""How good predicted error maps are: as maps, as a ranking, and as allocations of segments to spaces."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import InputError
from ..regions import Regions
from ..segment import AbstractInvertibility, AbstractSegmenter, allocate, check_tau, dense_ids, segment_mean
from ..segment.network import InvertibilityNet
from ..segment.predicted import PredictedInvertibility
from .errors import ErrorMaps

SAMPLED = 200_000
"""Pixels, over all images, that ranks and calibration are taken from."""
_BATCH = 8


def evaluate_invertibility(
    network: InvertibilityNet | AbstractInvertibility,
    data: ErrorMaps,
    segmenter: AbstractSegmenter,
    tau: float,
    *,
    spaces: Sequence[str] | None = None,
    bins: int = 15,
) -> dict[str, Any]:
    """Compare predicted error maps with measured ones on images that were not trained on.

    Args:
        network: Predicts the maps.
        data: Measured maps of the images; those held out are the second part of :meth:`ErrorMaps.split`.
        segmenter: Cuts the images into the segments that are allocated.
        tau: Threshold of the allocation.
        spaces: That take part, the most editable first; those of the data if None.
        bins: Points of the calibration curve, with equally many pixels each.

    Returns:
        A record of plain numbers, lists and texts, None where a figure does not exist (such as the rank correlation of
        a constant). "images", "segments" (counts), "tau", "spaces". "per_space": for each space "r2_pixels",
        "r2_segments" (of means over segments), "rank_pixels", "rank_segments" (Spearman), "mean_predicted",
        "mean_measured" and "calibration" (mean predicted and measured error of each bin). "agreement": share of
        "segments" and of the "area" allocated as the measured maps would, share of segments sent to a "more_editable"
        or "less_editable" space than that, and "commonest", the share that giving all segments to the one commonest
        space would reach. "confusion": counts of "segments" and of pixels ("area"), rows by measurement, columns by
        prediction.

    Raises:
        InputError: If the network was trained for another generator or metric, or lacks a space; or there is no image.
    """
    chosen = tuple(data.spaces if spaces is None else spaces)
    predict = _predictor(network, data, chosen)
    check_tau(tau)
    if not len(data):
        raise InputError("There are no images to evaluate on.")
    table = _Table(chosen, math.ceil(SAMPLED / len(data)))
    for start in range(0, len(data), _BATCH):
        images, errors = data.batch(range(start, min(start + _BATCH, len(data))))
        measured = {space: errors[:, k : k + 1] for k, space in enumerate(data.spaces) if space in chosen}
        maps = predict(images)
        table.add({space: maps[space].cpu() for space in chosen}, measured, segmenter(images), tau)
    return {"images": len(data), "tau": float(tau), **table.record(bins)}


def psnr_lost(
    network: InvertibilityNet | AbstractInvertibility,
    data: ErrorMaps,
    segmenter: AbstractSegmenter,
    tau: float,
    invert: Callable[[Tensor, Regions], float],
    *,
    spaces: Sequence[str] | None = None,
    count: int | None = None,
) -> dict[str, Any]:
    """How many dB an inversion loses when segments are allocated by prediction instead of by measurement.

    Args:
        network: Predicts the maps.
        data: Measured maps.
        segmenter: Cuts the images into segments.
        tau: Threshold of the allocation.
        invert: Inverts an image `[1, 3, H, W]` under given regions and returns the PSNR in dB.
        spaces: That take part, the most editable first; those of the data if None.
        count: Number of images, from the first on; all if None.

    Returns:
        A record of plain numbers: "images", "same" (images allocated alike, which lose nothing), means "predicted",
        "measured" and "lost" in dB, "lost_median", "lost_worst", and "each", a list by image.

    Raises:
        InputError: As :func:`evaluate_invertibility`.
    """
    chosen = tuple(data.spaces if spaces is None else spaces)
    predict = _predictor(network, data, chosen)
    part = data if count is None else data[:count]
    if not len(part):
        raise InputError("There are no images to evaluate on.")
    each = []
    for index, name in enumerate(part.names):
        images, errors = part.batch([index])
        segments = segmenter(images)
        measured = {space: errors[:, k : k + 1] for k, space in enumerate(data.spaces)}
        maps = {space: value.cpu() for space, value in predict(images).items()}
        ours, theirs = (allocate(error, segments, chosen, tau) for error in (maps, measured))
        best = float(invert(images, theirs))
        got = best if torch.equal(ours.labels, theirs.labels) else float(invert(images, ours))
        each.append({"name": name, "predicted": got, "measured": best, "lost": best - got})
    lost = np.array([row["lost"] for row in each])
    return {
        "images": len(each),
        "same": int((lost == 0).sum()),
        "predicted": _number(np.mean([row["predicted"] for row in each])),
        "measured": _number(np.mean([row["measured"] for row in each])),
        "lost": _number(lost.mean()),
        "lost_median": _number(np.median(lost)),
        "lost_worst": _number(lost.max()),
        "each": each,
    }


def describe_evaluation(record: Mapping[str, Any]) -> str:
    """A record of :func:`evaluate_invertibility` as a table of lines."""
    lines = [f"{record['images']} images, {record['segments']} segments, tau {record['tau']:g}"]
    lines.append(f"{'space':<8}{'R² pixels':>12}{'R² segments':>13}{'rank pixels':>13}{'rank segments':>15}")
    for space in record["spaces"]:
        row = record["per_space"][space]
        cells = [row[name] for name in ("r2_pixels", "r2_segments", "rank_pixels", "rank_segments")]
        shown = ["-" if cell is None else f"{cell:.3f}" for cell in cells]
        lines.append(f"{space:<8}{shown[0]:>12}{shown[1]:>13}{shown[2]:>13}{shown[3]:>15}")
    shares = record["agreement"]
    lines.append(
        f"allocated as measured: {shares['segments']:.1%} of the segments, {shares['area']:.1%} of the area; to a more "
        f"editable space {shares['more_editable']:.1%}, to a less editable one {shares['less_editable']:.1%}; the "
        f"commonest space for all would reach {shares['commonest']:.1%}"
    )
    return "\n".join(lines)


class _Table:
    """Sums over batches of what the record is made of."""

    def __init__(self, spaces: Sequence[str], sampled: int) -> None:
        self.spaces, self.sampled = tuple(spaces), sampled
        count = len(self.spaces)
        self.pixels: list[np.ndarray] = []
        self.segments: list[np.ndarray] = []
        self.sums = np.zeros((5, count))
        self.counts = {"segments": np.zeros((count, count), int), "area": np.zeros((count, count), int)}
        self.source = torch.Generator().manual_seed(0)

    def add(self, predicted: Mapping[str, Tensor], measured: Mapping[str, Tensor], segments: Any, tau: float) -> None:
        ours, theirs = (torch.cat([maps[s] for s in self.spaces], dim=1).double() for maps in (predicted, measured))
        parts = ((ours - theirs).square(), theirs, theirs.square(), torch.ones_like(theirs), ours)
        self.sums += np.stack([part.sum(dim=(0, 2, 3)).numpy() for part in parts])
        both = torch.stack([ours, theirs]).flatten(3)
        chosen = torch.randperm(both.shape[-1], generator=self.source)[: self.sampled]
        self.pixels.append(both[..., chosen].transpose(1, 2).flatten(2).numpy())
        index, sizes = dense_ids(segments.ids.cpu())
        there = sizes > 0
        means = [
            [segment_mean(part[:, k : k + 1], index, sizes.shape[1])[there] for k in range(len(self.spaces))]
            for part in (ours, theirs)
        ]
        self.segments.append(np.array([[mean.numpy() for mean in row] for row in means]))
        self._count(predicted, measured, segments, tau, index, there)

    def _count(self, predicted: Any, measured: Any, segments: Any, tau: float, index: Tensor, there: Tensor) -> None:
        labels = [allocate(maps, segments, self.spaces, tau).labels.cpu() for maps in (measured, predicted)]
        size = len(self.spaces)
        pixels = labels[0] * size + labels[1]
        # The label of a segment is that of each of its pixels.
        each = segment_mean(pixels[:, None].double(), index, there.shape[1])[there].round().long()
        for name, codes in (("segments", each), ("area", pixels.flatten().long())):
            self.counts[name] += torch.bincount(codes, minlength=size * size).view(size, size).numpy()

    def record(self, bins: int) -> dict[str, Any]:
        pixels = np.concatenate(self.pixels, axis=-1)
        segments = np.concatenate(self.segments, axis=-1)
        squares, first, second, count, ours = self.sums
        spread = second - first**2 / count
        per_space = {}
        for k, space in enumerate(self.spaces):
            per_space[space] = {
                "r2_pixels": _r2(squares[k], spread[k], count[k]),
                "r2_segments": _r2_of(*segments[:, k]),
                "rank_pixels": _rank(*pixels[:, k]),
                "rank_segments": _rank(*segments[:, k]),
                "mean_predicted": _number(ours[k] / count[k]),
                "mean_measured": _number(first[k] / count[k]),
                "calibration": _calibration(pixels[0, k], pixels[1, k], bins),
            }
        table = self.counts["segments"]
        total = table.sum()
        agreement = {
            "segments": float(np.trace(table) / total),
            "area": float(np.trace(self.counts["area"]) / self.counts["area"].sum()),
            "more_editable": float(np.tril(table, -1).sum() / total),
            "less_editable": float(np.triu(table, 1).sum() / total),
            "commonest": float(table.sum(axis=1).max() / total),
        }
        return {
            "segments": int(total),
            "spaces": list(self.spaces),
            "per_space": per_space,
            "agreement": agreement,
            "confusion": {name: counts.tolist() for name, counts in self.counts.items()},
        }


def _predictor(network: Any, data: ErrorMaps, spaces: Sequence[str]) -> AbstractInvertibility:
    missing = [space for space in spaces if space not in data.spaces]
    if missing or not spaces:
        raise InputError(f"{data.folder} was not read for {', '.join(missing) or 'no space'}, but for {data.spaces}.")
    predict = PredictedInvertibility(network) if isinstance(network, InvertibilityNet) else network
    if isinstance(predict, PredictedInvertibility):
        predict.check_for(data.fingerprint, spaces, data.metric)
    return predict


def _calibration(predicted: np.ndarray, measured: np.ndarray, bins: int) -> dict[str, list[float]]:
    """Mean predicted and measured error of bins with equally many pixels, in the order of the prediction."""
    order = np.argsort(predicted, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return {
        "predicted": [float(predicted[part].mean()) for part in parts],
        "measured": [float(measured[part].mean()) for part in parts],
    }


def _rank(predicted: np.ndarray, measured: np.ndarray) -> float | None:
    """Spearman's rank correlation; None where one side is constant."""
    if len(predicted) < 2 or np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        return None
    from scipy import stats

    return _number(stats.spearmanr(predicted, measured).statistic)


def _r2_of(predicted: np.ndarray, measured: np.ndarray) -> float | None:
    squares, spread = np.sum((predicted - measured) ** 2), np.sum((measured - measured.mean()) ** 2)
    return _r2(squares, spread, len(measured))


def _r2(squares: float, spread: float, count: float) -> float | None:
    # The sums carry rounding: a spread below it is that of a constant.
    return _number(1 - squares / spread) if spread > 1e-12 * count else None


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None

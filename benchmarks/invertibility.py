"""Predicted invertibility against measured, and what each part of the method is for, on held-out scenes.

Errors: every scene is inverted into each space alone, as for the data of the network; the network's maps are compared
with these, and so is a second measurement of F6 that starts from the mean image: what differs between two measurements
no network can predict. Allocations (scenes with strangers only, elsewhere nearly all stays in W+): SAM by measurement
on the way, by prediction, and by the measured maps themselves; by prediction without relief of what far worse segments
pull; without refinement (each pixel goes where its own predicted error says); class segmentation (the car in W+, all
else in F6); and by prediction without the regulariser of the features.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from itertools import starmap

import torch
from common import SAM, Options, Record, Scene, figure, generator, median, metric, parse, ratio, report, run, values
from common import table as markdown
from measures import EDITED, EditTrial, car_area, reconstruction
from scipy.stats import spearmanr
from torch import Tensor

import saminv
from saminv import Regions, Solution, allocate
from saminv._recipe import PREDICTED_TAU
from saminv.demo.segmenter import CAR, DemoSegmenter
from saminv.runs.errors import BUILD_STEPS
from saminv.segment import PredictedInvertibility, Segments
from saminv.segment.allocate import SegmentErrors

TOGETHER = 8
"""Scenes that are inverted in one batch."""
JUDGED = ("W+", "F4", "F6")
REPEATED = ("F6",)
PREDICTED = "predicted"
ROWS = {
    "measured": "SAM, measured on the way",
    PREDICTED: "SAM, predicted",
    "oracle": "SAM, maps of separate inversions",
    "plain": "predicted, no relief",
    "pixels": "predicted, no refinement",
    "classes": "class segmentation: car W+, rest F6",
    "no regulariser": "predicted, no feature regulariser",
}


@functools.lru_cache(maxsize=1)
def network() -> PredictedInvertibility:
    """The bundled network of the demo's generator."""
    return PredictedInvertibility.for_generator(generator(), SAM, "demo")


def task(chunk: Scene, options: Options) -> Record:
    """Errors of a batch of scenes, and the inversions of those with strangers; ``chunk.index`` counts batches."""
    scenes = [
        Scene.numbered(k) for k in range(TOGETHER * chunk.index, min(TOGETHER * (chunk.index + 1), options.scenes))
    ]
    images = torch.cat([scene.batch.images for scene in scenes])
    segments = DemoSegmenter()(images)
    truth = measured_maps(images, torch.cat([scene.start for scene in scenes]), SAM)
    again = measured_maps(images, "mean", REPEATED)
    begun = time.perf_counter()
    predicted = network()(images)
    seconds = (time.perf_counter() - begun) / len(scenes)
    strange = [row for row, scene in enumerate(scenes) if scene.strangers]
    return {
        "spaces": {space: pixel_sums(truth[space], predicted[space]) for space in SAM},
        "again": {space: pixel_sums(truth[space], again[space]) for space in REPEATED},
        "segments": segment_record(truth, predicted, segments),
        "network_seconds": seconds,
        "scenes": inversions([scenes[row] for row in strange], strange, truth, predicted, segments, options),
    }


def measured_maps(images: Tensor, start: Tensor | str, spaces: Sequence[str]) -> dict[str, Tensor]:
    """Errors `[B, 1, H, W]` of inversions into each space alone, as ``saminv invertibility build`` measures them."""
    prepared = metric().prepare(images)
    maps = {}
    for space in spaces:
        settings = {"encoder": start, "steps": BUILD_STEPS, "segmenter": "none", "invertibility": "measured"}
        solution = saminv.invert(images, [space], generator="demo", **settings)
        with torch.no_grad():
            maps[space] = metric().map(solution.image, prepared)
    return maps


def pixel_sums(truth: Tensor, predicted: Tensor) -> Record:
    """What R^2 over all pixels of all batches needs."""
    truth, predicted = truth.double(), predicted.double()
    sums = {"n": truth.numel(), "sum": truth.sum(), "squares": truth.square().sum()}
    return {key: float(value) for key, value in {**sums, "errors": (truth - predicted).square().sum()}.items()}


def segment_record(truth: dict[str, Tensor], predicted: dict[str, Tensor], segments: Segments) -> Record:
    """Mean errors of all segments by space, and where both maps put them."""
    pair = [SegmentErrors.of(maps, segments, SAM) for maps in (truth, predicted)]
    there = torch.stack([torch.arange(pair[0].means.shape[2]) < len(torch.unique(ids)) for ids in segments.ids])
    means = [{space: part.means[k][there].tolist() for k, space in enumerate(SAM)} for part in pair]
    levels = [part.levels(PREDICTED_TAU)[there].tolist() for part in pair]
    return {"truth": means[0], "predicted": means[1], "levels": levels}


def inversions(
    scenes: Sequence[Scene],
    rows: Sequence[int],
    truth: dict[str, Tensor],
    predicted: dict[str, Tensor],
    segments: Segments,
    options: Options,
) -> list[Record]:
    """Scores and edits of the scenes with strangers, by method."""
    images = torch.cat([scene.batch.images for scene in scenes])
    start = torch.cat([scene.start for scene in scenes])
    chosen = Segments(segments.ids[rows])
    parts = [{space: maps[rows] for space, maps in group.items()} for group in (truth, predicted)]
    oracle, network_errors = (SegmentErrors.of(group, chosen, SAM).relieved() for group in parts)
    by_network = network_errors.allocate(PREDICTED_TAU)
    pixels = Segments(torch.arange(images[0, 0].numel()).reshape(1, *images.shape[2:]).expand(len(rows), -1, -1))
    car = Regions((chosen.ids != CAR).long() * SAM.index("F6"), SAM)
    ways = {
        "measured": {"invertibility": "measured"},
        PREDICTED: {"invertibility": by_network},
        "oracle": {"invertibility": oracle.allocate(PREDICTED_TAU)},
        "plain": {"invertibility": allocate(parts[1], chosen, SAM, PREDICTED_TAU)},
        "pixels": {"invertibility": allocate(parts[1], pixels, SAM, PREDICTED_TAU)},
        "classes": {"invertibility": car},
        "no regulariser": {"invertibility": by_network, "weights": {"feature": 0.0}},
    }
    found: list[Record] = [{"scene": scene.index} for scene in scenes]
    trials = [EditTrial(scene) for scene in scenes]
    for name, way in ways.items():
        settings = {"spaces": list(SAM), "generator": "demo", "encoder": start, "steps": options.steps, **way}
        solution = saminv.invert(images, **settings)
        for record, one in zip(found, starmap(score, ((s, solution[k], trials[k]) for k, s in enumerate(scenes)))):
            record[name] = one
    return found


def score(scene: Scene, solution: Solution, trial: EditTrial) -> Record:
    """Quality, edits, and how evenly an edit of the hue changes the car."""
    numbers = {**reconstruction(solution.image, scene.batch.images), **trial.measure(solution)}
    inside, whole = car_area(scene, solution)
    numbers["car"] = inside / whole if whole else None
    return {**numbers, "coherence": coherence(scene, solution, trial)}


@torch.no_grad()
def coherence(scene: Scene, solution: Solution, trial: EditTrial) -> float:
    """Evenness of the change of the car's body by an edit of its hue: 1 where each pixel changes as the scene's own.

    The change of each body pixel is projected on the change that the same edit makes to the scene's own code; 1 minus
    the deviation of these parts over the body, relative to their mean for the own code, but at least 0.
    """
    sign = trial.signs["car_hue"]
    own, changed = trial.pictures["car_hue"]
    wanted = changed - own
    got = solution.edit("car_hue", sign).clamp(-1, 1) - solution.image.clamp(-1, 1)
    size = wanted.square().sum(dim=1)
    body = (size > 0.25 * size.max()) & (scene.batch.stranger_masks[:, 0] == 0)
    part = ((got * wanted).sum(dim=1) / size.clamp_min(1e-6))[body]
    return float((1 - part.std()).clamp_min(0)) if len(part) > 1 else float("nan")


def r2(records: list[Record], space: str, kind: str = "spaces") -> float:
    """R^2 over all pixels, of the predictions or of measuring "again"."""
    sums = {key: sum(record[kind][space][key] for record in records) for key in ("n", "sum", "squares", "errors")}
    return 1 - sums["errors"] / (sums["squares"] - sums["sum"] ** 2 / sums["n"])


def pooled(records: list[Record], kind: str, space: str) -> list[float]:
    """Mean errors of all segments of all scenes."""
    return [value for record in records for value in record["segments"][kind][space]]


def segment_r2(records: list[Record], space: str) -> float:
    """R^2 over segments."""
    truth, predicted = (torch.tensor(pooled(records, kind, space)).double() for kind in ("truth", "predicted"))
    return float(1 - (truth - predicted).square().sum() / (truth - truth.mean()).square().sum())


def rank(records: list[Record], space: str) -> float:
    """Spearman's rank correlation over segments."""
    return float(spearmanr(pooled(records, "truth", space), pooled(records, "predicted", space)).statistic)


def agreement(records: list[Record]) -> float:
    """Share of segments that both maps put into the same space."""
    pairs = [pair for record in records for pair in zip(*record["segments"]["levels"])]
    return sum(a == b for a, b in pairs) / len(pairs)


def error_table(records: list[Record]) -> str:
    """How well the maps are predicted, by space."""
    rows = [
        [
            space,
            r2(records, space),
            r2(records, space, "again") if space in REPEATED else None,
            segment_r2(records, space),
            rank(records, space),
        ]
        for space in SAM
    ]
    headers = ["Space", "R², pixels", "that of a second measurement", "R², segments", "rank correlation, segments"]
    return markdown(headers, rows, digits=3)


def method_table(scenes: list[Record]) -> str:
    """Median quality and edits by method."""
    rows = []
    for name, label in ROWS.items():
        effects = [median(scenes, name, "effect", factor) for factor in EDITED]
        more = [median(scenes, name, key) for key in ("mean_drift", "coherence", "car")]
        rows.append([label, median(scenes, name, "psnr"), median(scenes, name, "perceptual"), *effects, *more])
    headers = ["Inversion", "PSNR (dB)", "demo perceptual", *EDITED, "drift outside", "coherence", "car in W+"]
    return markdown(headers, rows, digits=3)


def mean_effect(scenes: list[Record], name: str) -> float:
    """Mean over the edits of the median effect."""
    return sum(median(scenes, name, "effect", factor) or 0.0 for factor in EDITED) / len(EDITED)


def difference(scenes: list[Record], one: str, other: str) -> float | None:
    """Median over the scenes of the PSNR of one method above that of another."""
    pairs = zip(values(scenes, one, "psnr"), values(scenes, other, "psnr"))
    found = sorted(a - b for a, b in pairs)
    return found[len(found) // 2] if found else None


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse("invertibility", __doc__, argv)
    records = run("invertibility", task, range(-(-options.scenes // TOGETHER)), options)
    scenes = [scene for record in records for scene in record["scenes"]]
    seconds = min(record["network_seconds"] for record in records)
    found = [figure(f"R² of the error of {space}, over pixels", r2(records, space), at_least=0.6) for space in JUDGED]
    found += [figure(f"R² of the error of {space}, over segments", segment_r2(records, space)) for space in JUDGED]
    found += [
        figure("rank correlation of W+, over segments", rank(records, "W+"), at_least=0.8),
        figure("segments allocated as by the measured maps", agreement(records), at_least=0.85),
        figure(
            "SAM predicted above SAM measured, PSNR", difference(scenes, PREDICTED, "measured"), at_least=-1, unit="dB"
        ),
        figure("one pass of the network, one image, one thread", 1000 * seconds, at_most=50, unit="ms"),
        figure(
            "predicted above class segmentation, PSNR", difference(scenes, PREDICTED, "classes"), at_least=0, unit="dB"
        ),
        *(
            figure(
                f"mean edit effect, {PREDICTED} relative to {words}",
                ratio(mean_effect(scenes, PREDICTED), mean_effect(scenes, other)),
                at_least=1,
            )
            for other, words in (("classes", "class segmentation"), ("pixels", "no refinement"))
        ),
        figure(
            "hue coherence over the car, predicted relative to no refinement",
            ratio(median(scenes, PREDICTED, "coherence"), median(scenes, "pixels", "coherence")),
            at_least=1,
        ),
    ]
    report("invertibility", options, [error_table(records), method_table(scenes)], found, records)


if __name__ == "__main__":
    main()

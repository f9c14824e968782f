"""Every preset on the same scenes: the twin of table 4.1 of the SAM report, and of table 2 of the Feature-Style paper.

Scenes are inverted in batches, half of them with strangers. ``--methods`` names presets to run; with ``--add`` the rows
of the others are taken from the JSON file of an earlier run. Six factors of the car are edited: those that the vision
network reads best where there are strangers, but for the facing, which mirrors the car.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from boundaries import across_boundaries, unedited
from common import (
    Options,
    Record,
    Scene,
    batches_of,
    figure,
    kept,
    median,
    parse,
    ratio,
    report,
    run,
    scenes_of_batch,
    state_of_code,
    values,
)
from common import table as markdown
from measures import EditTrial, car_area, reading_quality, reconstruction

import saminv
from saminv import PRESETS, Solution, Status
from saminv.demo.edits import WELL_READ
from saminv.demo.segmenter import CAR
from saminv.encoders import ENCODERS

TOGETHER = 8
"""Scenes that are inverted in one batch."""
EDITED = WELL_READ
"""Factors whose edits are measured."""
OTHERS = ("car_lightness", "body_length", "cabin_height", "wheel_size")
"""The car's factors besides these and the facing, which mirrors it."""
CHOICES = ("demo-padinv", "demo-feature-style")
"""Where the methods that have an encoder start: the first that is bundled; the default start stands in for none."""
ENCODED = ("hybrid", "idinvert")
UNSTOPPED = "pti without its stop"
METHODS = ("w", "w+", "gaussian", "hybrid", "idinvert", "i2s++", "pti", UNSTOPPED, "fs", "padding", "dhr", "sam")
STAYED = 0.9
"""Part of the car's area in W+ from which on the car counts as lying in W+."""
KEPT = 0.8
"""Edit effect from which on a method counts as editable."""
GROUPS = {"with strangers": True, "without": False}


def encoder() -> str | None:
    """Name of the encoder of the methods that have one."""
    return next((name for name in CHOICES if name in ENCODERS), None)


def can_run(method: str) -> bool:
    """Whether there is such a preset, and an encoder if it is nothing without one."""
    return method == UNSTOPPED or (method in PRESETS and (method != "idinvert" or encoder() is not None))


def title(method: str) -> str:
    """What a method is called in the tables."""
    if method == "idinvert" and not can_run(method):
        return "idinvert, not run: no encoder"
    if method in ENCODED:
        return f"{method}, from {encoder()}" if encoder() else f"{method}, no encoder: usual start"
    return method


def inverted(method: str, batch: int, options: Options) -> Solution:
    """A batch of scenes inverted by a method, with the processor time of a picture as ``stats["seconds"]``."""
    images = torch.cat([scene.batch.images for scene in scenes_of_batch(batch, TOGETHER, options.scenes)])
    settings: Record = {"generator": "demo", "steps": options.steps}
    if method in ENCODED and encoder():
        settings["encoder"] = encoder()

    def make() -> Solution:
        began = time.process_time()
        if method == UNSTOPPED:
            solution = pivotal_tuning(images, options.steps)
        else:
            solution = saminv.invert(images, preset=method, **settings)
        seconds = torch.full((len(images),), (time.process_time() - began) / len(images), dtype=torch.float64)
        return replace(solution, stats={**solution.stats, "seconds": seconds})

    return kept(["methods", method, batch, len(images), settings], make, options)


def pivotal_tuning(images: torch.Tensor, steps: int) -> Solution:
    """The preset "pti" without the rule that stops it at a perceptual distance."""
    preset = PRESETS.get("pti")
    solution: Solution | None = None
    for stage, count in zip(preset.stages, preset.steps(steps)):
        settings = {name: value for name, value in stage.settings.items() if name != "stop_at"}
        settings |= {} if solution is None else {"encoder": solution}
        solution = saminv.invert(images, list(stage.spaces or ()), generator="demo", steps=count, **settings)
    assert solution is not None
    return solution


def task(method: str, chunk: Scene, options: Options) -> Record:
    """Scores and edits of a batch of scenes by one method; ``chunk.index`` counts batches."""
    solution = inverted(method, chunk.index, options)
    rows = []
    for k, scene in enumerate(scenes_of_batch(chunk.index, TOGETHER, options.scenes)):
        one, trial = solution[k], EditTrial(scene, EDITED)
        row = {"scene": scene.index, "strangers": scene.strangers, "seconds": one.stats["seconds"][0]}
        row |= {"steps": one.stats["steps"][0], "stopped": int(one.status[0]) == Status.REACHED}
        row |= {**reconstruction(one.image, scene.batch.images), **trial.measure(one)}
        if method == "sam":
            inside, whole = car_area(scene, one)
            row["car_share"] = inside / whole if whole else None
            if one.segments is not None and bool((one.segments == CAR).any()):
                row["within"] = trial.measure(one, within="car")
        rows.append(row)
    return {"rows": rows}


def boundary_task(method: str, _: Scene, options: Options) -> Record:
    """Edits of all scenes across boundaries that are found from the method's own codes."""
    solutions = [inverted(method, batch, options) for batch in batches_of(TOGETHER, options.scenes)]
    return {"boundaries": across_boundaries(solutions, all_scenes(options))}


def all_scenes(options: Options) -> list[Scene]:
    """The scenes batch by batch."""
    batches = batches_of(TOGETHER, options.scenes)
    return [scene for batch in batches for scene in scenes_of_batch(batch, TOGETHER, options.scenes)]


def measure(method: str, options: Options) -> Record:
    """All that is known of a method."""
    chunks = run(f"methods-{method}", functools.partial(task, method), batches_of(TOGETHER, options.scenes), options)
    [edits] = run(f"boundaries-{method}", functools.partial(boundary_task, method), [0], options)
    rows = [row for chunk in chunks for row in chunk["rows"]]
    origin = {"command": options.command, "code": state_of_code()}
    return {"method": method, "title": title(method), **origin, "rows": rows, **edits}


def earlier(options: Options) -> dict[str, Record]:
    """What the JSON file says of methods, if it is of as many scenes and steps."""
    if not options.out.is_file():
        raise SystemExit(f"--add needs the rows of an earlier run, and there is no file {options.out}.")
    content = json.loads(options.out.read_text(encoding="utf-8"))
    there = {key: content["settings"][key] for key in ("scenes", "steps")}
    wanted = {"scenes": options.scenes, "steps": options.steps}
    if there != wanted:
        raise SystemExit(f"--add: {options.out} is of {there}, this run of {wanted}; give both the same.")
    return {record["method"]: record for record in content["scenes"]}


def quality_table(found: dict[str, Record]) -> str:
    """Means over all scenes with standard errors, medians of edits; methods that cannot run are named too."""
    rows = []
    for method in METHODS:
        scenes = found[method]["rows"] if method in found else []
        cells = [with_error(scenes, "psnr", 2), *(with_error(scenes, key, 4) for key in ("ssim", "perceptual"))]
        edits = [median(scenes, "mean_effect"), median(scenes, "mean_drift")]
        if method in found or not can_run(method):
            name = found[method]["title"] if method in found else title(method)
            rows.append([name, *cells, *edits, mean(scenes, "seconds"), mean(scenes, "steps")])
    scores = ["PSNR (dB)", "SSIM", "demo perceptual", "edit effect", "drift outside"]
    return markdown(["Method", *scores, "processor s per picture", "steps of the last stage"], rows, digits=3)


def group_table(found: dict[str, Record]) -> str:
    """The same for scenes with and without strangers."""
    rows = []
    for record in found.values():
        cells: list[Any] = [record["title"]]
        for strangers in GROUPS.values():
            scenes = [row for row in record["rows"] if row["strangers"] == strangers]
            cells += [mean(scenes, "psnr"), mean(scenes, "perceptual"), median(scenes, "mean_effect")]
        rows.append(cells)
    headers = [f"{what}, {group}" for group in GROUPS for what in ("PSNR (dB)", "demo perceptual", "edit effect")]
    return markdown(["Method", *headers], rows, digits=3)


def edit_table(found: dict[str, Record]) -> str:
    """Effect and drift of the edit of each factor, by W+, SAM, and SAM within the car."""
    sam, base = (found[name]["rows"] if name in found else [] for name in ("sam", "w+"))
    stayed = [row for row in sam if (row["car_share"] or 0) >= STAYED]
    rows = []
    for name in EDITED:
        effects = [median(base, "effect", name), median(sam, "effect", name), median(stayed, "effect", name)]
        within = median(sam, "within", "effect", name), median(sam, "within", "drift", name)
        drifts = [median(base, "drift", name), median(sam, "drift", name)]
        rows.append([name, *effects, within[0], *drifts, within[1]])
    headers = ["effect of W+", "of SAM", "of SAM, car in W+", "of SAM within the car"]
    return markdown(["Factor", *headers, "drift of W+", "of SAM", "of SAM within the car"], rows, digits=3)


def boundary_table(found: dict[str, Record], options: Options) -> str:
    """Edits across boundaries from each method's own codes."""
    rows: list[list[Any]] = []
    for record in found.values():
        edits = record["boundaries"] or {}
        cells = [edits.get(key) for key in ("accuracy", "effect", "fid", "kid")]
        rows.append([record["title"], *cells])
    still = unedited(all_scenes(options))
    rows.append(["the scenes, not edited", None, 0.0, still["fid"], still["kid"]])
    headers = ["Method", "boundaries right on held-out codes", "effect of own boundaries"]
    return markdown([*headers, "FID, demo features", "KID, demo features"], rows, digits=3)


def mean(records: Sequence[Record], *path: str) -> float | None:
    """Mean of the numbers at a path of keys; None without any."""
    found = values(records, *path)
    return statistics.fmean(found) if found else None


def with_error(records: Sequence[Record], key: str, digits: int) -> str | None:
    """A mean and its standard error as the cell of a table."""
    found = values(records, key)
    if len(found) < 2:
        return None if not found else f"{found[0]:.{digits}f}"
    error = statistics.stdev(found) / math.sqrt(len(found))
    return f"{statistics.fmean(found):.{digits}f} ± {error:.{digits}f}"


def above(found: dict[str, Record], one: str, other: str | None, key: str) -> float | None:
    """By how much the mean of a method is above that of another one."""
    pair = [mean(found[name]["rows"], key) if name in found else None for name in (one, other)]
    return pair[0] - pair[1] if pair[0] is not None and pair[1] is not None else None


def best_other(found: dict[str, Record], key: str, editable: bool) -> str | None:
    """The method besides SAM with the best mean, of all or of those that keep the effect of edits."""
    others = [name for name in found if name != "sam"]
    if editable:
        others = [name for name in others if (median(found[name]["rows"], "mean_effect") or 0) >= KEPT]
    best = max if key == "psnr" else min
    return best(others, key=lambda name: mean(found[name]["rows"], key) or 0.0, default=None)


def figures(found: dict[str, Record]) -> list[Record]:
    """The figures that are held against bars."""
    codes = {record["code"] for record in found.values()}
    versions = figure("versions of the code that these rows were measured with", float(len(codes)), at_most=1)
    read = [reading_quality(names) for names in (EDITED, OTHERS)]
    return [
        *quality_figures(found),
        *edit_figures(found),
        figure("worst R² at which one of the six factors is read, with strangers", min(read[0].values())),
        figure("best R² of the car's other factors, but for the facing", max(read[1].values())),
        versions,
    ]


def quality_figures(found: dict[str, Record]) -> list[Record]:
    """How SAM compares with the other methods, and PTI with W+."""
    sam, pti = (found[name]["rows"] if name in found else [] for name in ("sam", "pti"))
    table = [figure("edit effect of SAM", median(sam, "mean_effect"), at_least=KEPT)]
    for editable, of_whom in ((True, f"of those that keep an edit effect of {KEPT:g}"), (False, "of all others")):
        close, alike = (best_other(found, key, editable) for key in ("psnr", "perceptual"))
        bar: Record = {"at_least": 0} if editable else {}
        name = f"PSNR of SAM above the best {of_whom}: {close}"
        table.append(figure(name, above(found, "sam", close, "psnr"), unit="dB", **bar))
        name = f"perceptual distance of SAM above the best {of_whom}: {alike}"
        table.append(figure(name, above(found, "sam", alike, "perceptual"), at_most=0))
    for key, better in (("psnr", "PSNR"), ("perceptual", "perceptual distance")):
        hard = {name: {**record, "rows": strange(record["rows"])} for name, record in found.items()}
        other = best_other(hard, key, True)
        name = f"{better} of SAM above the best of those that keep it with strangers, there: {other}"
        bar = {"at_least": 0} if key == "psnr" else {"at_most": 0}
        table.append(figure(name, above(hard, "sam", other, key), unit="dB" if key == "psnr" else "", **bar))
    table.append(figure("PSNR of SAM above PTI", above(found, "sam", "pti", "psnr"), at_least=2, unit="dB"))
    table.append(figure("PSNR of PTI above W+", above(found, "pti", "w+", "psnr"), at_least=0, unit="dB"))
    early = mean(pti, "stopped")
    return [*table, figure("part of the pictures that the stop rule of PTI ended", early)]


def strange(rows: Sequence[Record]) -> list[Record]:
    """The rows of scenes with strangers."""
    return [row for row in rows if row["strangers"]]


def edit_figures(found: dict[str, Record]) -> list[Record]:
    """Effects of SAM where the car lies in W+, and its drift relative to that of W+."""
    sam, base = (found[name]["rows"] if name in found else [] for name in ("sam", "w+"))
    stayed = [row for row in sam if (row["car_share"] or 0) >= STAYED]
    table = [figure("scenes whose car SAM leaves in W+", float(len(stayed)))]
    for name in EDITED:
        label = f"{name}: effect of SAM, car in W+, relative to the scene's own code"
        table.append(figure(label, median(stayed, "effect", name), at_least=KEPT))
    for where, path, bar in (("", ("mean_drift",), 1.0), (" within the car", ("within", "mean_drift"), 0.5)):
        pairs = [(values([row], *path), row_of_base["mean_drift"]) for row, row_of_base in zip(sam, base)]
        known = [(drift[0], usual) for drift, usual in pairs if drift and usual]
        whole = ratio(*(statistics.median(column) for column in zip(*known))) if known else None
        each = statistics.median(drift / usual for drift, usual in known) if known else None
        table.append(figure(f"drift of SAM{where} relative to W+, ratio of the medians", whole, at_most=bar))
        table.append(figure(f"drift of SAM{where} relative to W+, median of the ratios", each, at_most=bar))
    return table


def arguments(argv: Sequence[str] | None) -> tuple[Options, list[str], bool]:
    """The command line: what all benchmarks have, the methods, and whether earlier rows are kept."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--add", action="store_true")
    known, rest = parser.parse_known_args(argv)
    options = parse("methods", f"{__doc__}\nMethods: {', '.join(METHODS)}.", rest)
    return replace(options, command=shlex.join(["python", "benchmarks/methods.py", *argv])), known.methods, known.add


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    options, methods, add = arguments(argv)
    there = earlier(options) if add else {}
    there |= {name: measure(name, options) for name in METHODS if name in methods and can_run(name)}
    found = {name: there[name] for name in METHODS if name in there}
    tables = [quality_table(found), group_table(found), edit_table(found), boundary_table(found, options)]
    report("methods", options, tables, figures(found), list(found.values()))


if __name__ == "__main__":
    main()

"""What sweeps over tau and searches for a target cost, and how good their results are, on scenes with strangers.

A sweep over the thresholds of the SAM report's curves is held against separate inversions at each of them. A search is
held against its target, and against the next more editable allocation, which has to miss it when it is inverted by
itself. Costs are relative to one inversion of the same batch, in seconds and in steps.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence

import torch
from common import SAM, Options, Record, Scene, figure, median, parse, report, run, values
from common import table as markdown

import saminv
from saminv import Solution
from saminv._arguments import make_recipe
from saminv._search import TAUS, segment_errors
from saminv.images import load_many

TOGETHER = 4
"""Scenes that are inverted in one batch."""
AT_ONCE = 8
"""Separate inversions that are made in one batch."""
TARGET = 30.0
"""PSNR that a search has to reach, in dB."""
SPACES = (*SAM, "F10")


def task(chunk: Scene, options: Options) -> Record:
    """Sweep, search and the inversions to hold them against, for a batch of scenes."""
    numbers = range(2 * TOGETHER * chunk.index, min(2 * TOGETHER * (chunk.index + 1), options.scenes), 2)
    scenes = [Scene.numbered(k) for k in numbers]
    images = torch.cat([scene.batch.images for scene in scenes])
    settings = {"generator": "demo", "encoder": torch.cat([scene.start for scene in scenes]), "steps": options.steps}
    settings["invertibility"] = "predicted"
    begun = time.perf_counter()
    one = saminv.invert(images, SPACES, **settings)
    seconds = time.perf_counter() - begun
    return {
        "seconds": seconds,
        "steps": float(one.stats["steps"].sum()),
        "sweep": sweep(images, settings, seconds),
        "search": search(images, settings, seconds),
    }


def sweep(images: torch.Tensor, settings: Record, seconds: float) -> Record:
    """Cost of a sweep, and its PSNR beside that of separate inversions."""
    begun = time.perf_counter()
    found = saminv.sweep(images, TAUS, SPACES, **settings)
    cost = (time.perf_counter() - begun) / seconds
    # Separate inversions under the same masks are the same, so each is made once.
    one_by_one = [solution[row] for solution in found.solutions for row in range(len(images))]
    keys = [(k % len(images), one.regions.labels.numpy().tobytes()) for k, one in enumerate(one_by_one)]
    once = dict(zip(keys, one_by_one))
    alone = dict(zip(once, separate(images, [row for row, _ in once], list(once.values()), settings)))
    pairs = [(float(one.stats["psnr"]), alone[key]) for key, one in zip(keys, one_by_one)]
    by_tau = [pairs[k : k + len(images)] for k in range(0, len(pairs), len(images))]
    psnr = [tuple(map(list, zip(*group))) for group in by_tau]
    return {"cost": cost, "work": found.work, "taus": list(found.taus), "psnr": psnr, "separate": len(alone)}


def separate(images: torch.Tensor, rows: Sequence[int], swept: Sequence[Solution], settings: Record) -> Sequence[float]:
    """PSNR of inversions from the start of the images ``rows``, under the regions of ``swept``."""
    found: list[float] = []
    for begin in range(0, len(rows), AT_ONCE):
        chosen = torch.tensor(rows[begin : begin + AT_ONCE])
        regions = Solution.join(list(swept[begin : begin + AT_ONCE])).regions
        own = {**settings, "encoder": settings["encoder"][chosen], "invertibility": regions}
        found += saminv.invert(images[chosen], SPACES, **own).stats["psnr"].tolist()
    return found


def search(images: torch.Tensor, settings: Record, seconds: float) -> Record:
    """Cost of a search, whether it met its target, and PSNR of the next more editable allocation."""
    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = saminv.invert(images, SPACES, "auto", target_psnr=TARGET, **settings)
    cost = (time.perf_counter() - begun) / seconds
    least = saminv.invert(images, SPACES, 0.0, **settings)
    before = [_more_editable(images, settings, found, row) for row in range(len(images))]
    return {
        "cost": cost,
        "met": found.stats["target_met"].tolist(),
        "reachable": (least.stats["psnr"] >= TARGET).tolist(),
        "psnr": found.stats["psnr"].tolist(),
        "before": before,
        "share": found.stats["share/W+"].tolist(),
        "allocations": found.stats["allocations"].tolist(),
    }


def _more_editable(images: torch.Tensor, settings: Record, found: Solution, row: int) -> float | None:
    """PSNR of the next more editable allocation of one image, inverted by itself; None where there is none."""
    own = {**settings, "encoder": settings["encoder"][row : row + 1]}
    recipe = make_recipe(SPACES, **own)
    errors, _ = segment_errors(recipe, recipe.prepare(load_many(images[row])))
    taus = errors.steps(0)
    tau = float(found.stats["tau"][row])
    place = min(range(len(taus)), key=lambda k: abs(taus[k] - tau))
    if place == 0:
        return None
    return float(saminv.invert(images[row], SPACES, taus[place - 1], **own).stats["psnr"])


def shortfalls(records: Sequence[Record]) -> list[float]:
    """By how many dB each solution of the sweeps is below the separate one."""
    pairs = [pair for record in records for pair in record["sweep"]["psnr"]]
    return [alone - swept for one, other in pairs for swept, alone in zip(one, other)]


def tau_table(records: Sequence[Record]) -> str:
    """Median PSNR by tau, of the sweep and of separate inversions."""
    rows = []
    for place, tau in enumerate(records[0]["sweep"]["taus"]):
        swept = [value for record in records for value in record["sweep"]["psnr"][place][0]]
        alone = [value for record in records for value in record["sweep"]["psnr"][place][1]]
        rows.append([f"{tau:g}", *(float(torch.tensor(found).median()) for found in (swept, alone))])
    return markdown(["tau", "sweep, PSNR (dB)", "separate, PSNR (dB)"], rows)


def search_figures(records: Sequence[Record]) -> list[Record]:
    """How often searches met their target, and how often the allocation before misses it."""
    rows = [
        (met, reachable, before)
        for record in records
        for met, reachable, before in zip(*(record["search"][key] for key in ("met", "reachable", "before")))
    ]
    possible = [row for row in rows if row[1]]
    met = sum(row[0] for row in possible) / len(possible) if possible else None
    missing = [row[2] < TARGET for row in possible if row[0] and row[2] is not None]
    share = sum(missing) / len(missing) if missing else None
    return [
        figure(f"searches that meet {TARGET:g} dB, where the last space can", met, at_least=0.9),
        figure("of these, the next more editable allocation by itself misses it", share, at_least=0.9),
        figure("cost of a search, in inversions", median(records, "search", "cost"), at_most=3),
    ]


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse("targets", __doc__, argv)
    records = run("targets", task, range(-(-options.scenes // (2 * TOGETHER))), options)
    below = sorted(shortfalls(records))
    within = sum(value <= 0.3 for value in below) / len(below)
    found = [
        figure("cost of a sweep of 14 thresholds, in inversions", median(records, "sweep", "cost"), at_most=4),
        figure("median shortfall of a sweep, PSNR", below[len(below) // 2], at_most=0.3, unit="dB"),
        figure("solutions of a sweep within 0.3 dB of separate ones", within, at_least=0.9),
        *search_figures(records),
    ]
    work = values(records, "sweep", "work")
    print(f"steps of a sweep: {sum(work):.0f}; of one inversion: {sum(values(records, 'steps')):.0f}")
    report("targets", options, [tau_table(records)], found, records)


if __name__ == "__main__":
    main()

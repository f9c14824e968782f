"""Starts without training: how many W+ steps from a better start reach what 300 cold ones do.

Scenes without strangers and with them, into W+ alone, with the default rates. A cold start is the mean w; "nearest" is
the nearest of random samples, "auto" lies between both. The budget of a run fixes its schedule, so every number of
steps is a run of its own. Scenes differ by far more than starts do, so a scene is compared with itself.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

import torch
from common import Options, Record, Scene, figure, median, parse, report, run
from common import table as markdown

import saminv

TOGETHER = 8
"""Scenes that are inverted in one batch."""
STARTS = ("nearest", "auto")
BUDGETS = (50, 100, 150)
COLD = 300


def task(chunk: Scene, options: Options) -> Record:
    """PSNR of a batch of scenes by start and budget; ``chunk.index`` counts batches."""
    numbers = range(TOGETHER * chunk.index, min(TOGETHER * (chunk.index + 1), options.scenes))
    images = torch.cat([Scene.numbered(k).batch.images for k in numbers])

    def psnr(start: str, steps: int) -> list[float]:
        settings = {"generator": "demo", "segmenter": "none", "invertibility": "measured"}
        return saminv.invert(images, ["W+"], encoder=start, steps=steps, **settings).stats["psnr"].tolist()

    scale = options.steps / COLD
    cold = psnr("mean", options.steps)
    rows: list[Record] = [{"cold": value, **{start: {} for start in STARTS}} for value in cold]
    for start, steps in itertools.product(STARTS, BUDGETS):
        for row, value in zip(rows, psnr(start, max(1, round(scale * steps)))):
            row[start][str(steps)] = value
    return {"scenes": rows}


def gains(records: Sequence[Record], start: str, steps: int) -> list[float]:
    """By how many dB so many steps from a start are above the cold one, by scene."""
    return [record[start][str(steps)] - record["cold"] for record in records]


def start_table(records: Sequence[Record]) -> str:
    """Medians by budget; scenes with strangers are the even ones."""
    groups = [records[::2], records[1::2]]
    rows: list[list[object]] = [["mean", str(COLD), *(median(group, "cold") for group in groups), None, None]]
    for start, steps in itertools.product(STARTS, BUDGETS):
        found = gains(records, start, steps)
        psnr = [median(group, start, str(steps)) for group in groups]
        rows.append([start, str(steps), *psnr, statistics.median(found), sum(x < -1 for x in found)])
    headers = ["Start", "steps", "PSNR with strangers (dB)", "without (dB)", "median gain (dB)", "scenes 1 dB below"]
    return markdown(headers, rows)


def enough(records: Sequence[Record], start: str) -> float | None:
    """Least budget from which half of the scenes are at the PSNR of their cold start or above it."""
    reached = [steps for steps in BUDGETS if statistics.median(gains(records, start, steps)) >= 0]
    return float(min(reached)) if reached else None


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse("starts", __doc__, argv)
    chunks = run("starts", task, range(-(-options.scenes // TOGETHER)), options)
    records = [scene for chunk in chunks for scene in chunk["scenes"]]
    name = "steps from {} to the PSNR of 300 from the mean w"
    found = [figure(name.format(start), enough(records, start), at_most=150) for start in STARTS]
    report("starts", options, [start_table(records)], found, records)


if __name__ == "__main__":
    main()

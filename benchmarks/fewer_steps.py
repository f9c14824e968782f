"""How many steps an inversion into W+ needs, against Adam with the published schedule and 1,001 steps from the mean w.

Every contender is a run of its own with its own budget, since the budget fixes the schedule. The published run takes
its steps in plain coordinates of w. PSNR is counted up to 45 dB. Scenes are inverted in batches, even ones with
strangers.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from common import Options, Record, Scene, figure, parse, report, run
from common import table as markdown

from saminv._recipe import make_recipe
from saminv.images import load_many
from saminv.optim import LBFGS, AbstractSolver, Adam, BestSoFar, Relay, Schedule, solve

TOGETHER = 8
"""Scenes that are inverted in one batch."""
PUBLISHED = 1001
HIGHEST = 45.0
"""PSNR up to which differences count, in dB."""
SOONER = {0.1: 3, 0.5: 6}
"""How many times sooner a run has to be so close to the end of the published one, in dB."""
FLAT = Schedule(ramp_down=0.0)
SOLVERS: dict[str, Callable[[], AbstractSolver] | None] = {
    "default": None,
    "L-BFGS": lambda: BestSoFar(LBFGS()),
    "Adam, then L-BFGS": lambda: BestSoFar(Relay(Adam(rate=0.3, schedule=FLAT), LBFGS(), share=0.4)),
}
REFERENCE = "Adam, published"


def published() -> AbstractSolver:
    """Adam as in the published codes."""
    return BestSoFar(Adam(rate=0.05, schedule=Schedule(first=0), precondition=False))


def budgets(options: Options) -> list[int]:
    """Steps that are that many times fewer than the published ones, in a run of usual length."""
    return [round(options.steps * PUBLISHED / 300 / times) for times in SOONER.values()]


def task(chunk: Scene, options: Options) -> Record:
    """PSNR of a batch of scenes by contender; ``chunk.index`` counts batches."""
    numbers = range(TOGETHER * chunk.index, min(TOGETHER * (chunk.index + 1), options.scenes))
    images = torch.cat([Scene.numbered(k).batch.images for k in numbers])

    def psnr(start: str, steps: int, solver: AbstractSolver | None) -> list[float]:
        settings: dict[str, Any] = {"generator": "demo", "segmenter": "none", "invertibility": "measured"}
        recipe = make_recipe(["W+"], encoder=start, steps=steps, **settings)
        with recipe.seeded():
            job = recipe.prepare(load_many(images))
            found = job.finish(solve(job.problem, solver or job.solver, max_steps=steps))
        return found.stats["psnr"].clamp_max(HIGHEST).tolist()

    long = round(options.steps * PUBLISHED / 300)
    found = {REFERENCE: {str(long): psnr("mean", long, published())}}
    for name, make in SOLVERS.items():
        found[name] = {str(steps): psnr("nearest", steps, make and make()) for steps in budgets(options)}
    return {"psnr": found}


def shortfalls(records: Sequence[Record], name: str, steps: int) -> list[float]:
    """By how many dB a contender is below the end of the published run, by scene."""
    pairs = []
    for record in records:
        [ends] = record["psnr"][REFERENCE].values()
        pairs += zip(ends, record["psnr"][name][str(steps)])
    return [end - reached for end, reached in pairs]


def contender_table(records: Sequence[Record]) -> str:
    """PSNR by contender and budget."""
    rows = []
    for name, by_steps in records[0]["psnr"].items():
        for steps in by_steps:
            psnr = [value for record in records for value in record["psnr"][name][steps]]
            below = shortfalls(records, name, int(steps))
            rows.append([name, steps, statistics.median(psnr), statistics.median(below), max(below)])
    return markdown(["Solver", "steps", "PSNR (dB)", "below the published end (dB)", "worst scene (dB)"], rows)


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse("fewer_steps", __doc__, argv)
    records = run("fewer_steps", task, range(-(-options.scenes // TOGETHER)), options)
    found = [
        figure(
            f"default in {times} times fewer steps, below the published end",
            statistics.median(shortfalls(records, "default", steps)),
            at_most=near,
            unit="dB",
        )
        for (near, times), steps in zip(SOONER.items(), budgets(options))
    ]
    report("fewer_steps", options, [contender_table(records)], found, records, page="performance.md")


if __name__ == "__main__":
    main()

"""How many steps an inversion into W+ needs, against Adam with the published schedule and 1,001 steps from the mean w.

Every contender is a run of its own with its own budget, since the budget fixes the schedule. The published run takes
its steps in plain coordinates of w. PSNR is counted up to 45 dB. Scenes are inverted in batches, even ones with
strangers; contenders other than the default only in the first one.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from common import Options, Record, Scene, figure, parse, report, run
from common import table as markdown

from saminv._arguments import make_recipe
from saminv.images import load_many
from saminv.optim import LBFGS, AbstractSolver, Adam, BestSoFar, CoarseToFine, Relay, Schedule

TOGETHER = 8
"""Scenes that are inverted in one batch."""
PUBLISHED = 1001
HIGHEST = 45.0
"""PSNR up to which differences count, in dB."""
SOONER = {0.1: 3, 0.5: 6}
"""How many times sooner a run has to be so close to the end of the published one, in dB."""
BATCHES_OF_OTHERS = 1
"""Batches in which every contender takes part."""
REFERENCE, DEFAULT = "Adam, published", "default"


@dataclass(frozen=True)
class Contender:
    """A way to invert.

    Attributes:
        solver: Method; None is what the library chooses.
        encoder: Start.
    """

    solver: AbstractSolver | None = None
    encoder: str = "auto"


def adam(rate: float, **settings: Any) -> Adam:
    """Adam with steps of one size until its end."""
    return Adam(rate=rate, schedule=Schedule(**settings))


CONTENDERS = {
    DEFAULT: Contender(),
    "default from the nearest sample": Contender(encoder="nearest"),
    "default from the mean w": Contender(encoder="mean"),
    "Adam at 0.1": Contender(BestSoFar(adam(0.1))),
    "Adam at 0.3": Contender(BestSoFar(adam(0.3))),
    "Adam at 0.2, plain coordinates": Contender(BestSoFar(Adam(rate=0.2, precondition=False))),
    "coarse to fine": Contender(BestSoFar(CoarseToFine(adam(0.2), share=0.2))),
    "L-BFGS": Contender(BestSoFar(LBFGS())),
    "Adam, then L-BFGS": Contender(BestSoFar(Relay(adam(0.3, ramp_down=0.0), LBFGS(), share=0.4))),
}
PUBLISHED_RUN = Contender(BestSoFar(Adam(rate=0.05, schedule=Schedule(first=0), precondition=False)), "mean")


def budgets(options: Options) -> list[int]:
    """Steps that are that many times fewer than the published ones, in a run of usual length."""
    return [round(options.steps * PUBLISHED / 300 / times) for times in SOONER.values()]


def task(chunk: Scene, options: Options) -> Record:
    """PSNR of a batch of scenes by contender; ``chunk.index`` counts batches."""
    numbers = range(TOGETHER * chunk.index, min(TOGETHER * (chunk.index + 1), options.scenes))
    images = torch.cat([Scene.numbered(k).batch.images for k in numbers])

    def psnr(contender: Contender, steps: int) -> list[float]:
        settings: dict[str, Any] = {"generator": "demo", "segmenter": "none", "invertibility": "measured"}
        recipe = make_recipe(["W+"], encoder=contender.encoder, steps=steps, **settings)
        with recipe.seeded():
            job = recipe.prepare(load_many(images))
            found = job.finish(recipe.solve(job.problem, contender.solver or job.solver, max_steps=steps))
        return found.stats["psnr"].clamp_max(HIGHEST).tolist()

    long = round(options.steps * PUBLISHED / 300)
    found = {REFERENCE: {str(long): psnr(PUBLISHED_RUN, long)}}
    for name, contender in CONTENDERS.items():
        if name == DEFAULT or chunk.index < BATCHES_OF_OTHERS:
            found[name] = {str(steps): psnr(contender, steps) for steps in budgets(options)}
    return {"psnr": found}


def shortfalls(records: Sequence[Record], name: str, steps: int) -> list[float]:
    """By how many dB a contender is below the end of the published run, by scene."""
    pairs = []
    for record in taking_part(records, name):
        [ends] = record["psnr"][REFERENCE].values()
        pairs += zip(ends, record["psnr"][name][str(steps)])
    return [end - reached for end, reached in pairs]


def taking_part(records: Sequence[Record], name: str) -> list[Record]:
    """The batches that a contender has inverted."""
    return [record for record in records if name in record["psnr"]]


def contender_table(records: Sequence[Record]) -> str:
    """PSNR by contender and budget."""
    rows = []
    for name, by_steps in records[0]["psnr"].items():
        for steps in by_steps:
            psnr = [value for record in taking_part(records, name) for value in record["psnr"][name][steps]]
            below = shortfalls(records, name, int(steps))
            rows.append([name, steps, len(psnr), statistics.median(psnr), statistics.median(below), max(below)])
    headers = ["Solver", "steps", "scenes", "PSNR (dB)", "below the published end (dB)", "worst scene (dB)"]
    return markdown(headers, rows)


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse("fewer_steps", __doc__, argv)
    records = run("fewer_steps", task, range(-(-options.scenes // TOGETHER)), options)
    found = [
        figure(
            f"default in {times} times fewer steps, below the published end",
            statistics.median(shortfalls(records, DEFAULT, steps)),
            at_most=near,
            unit="dB",
        )
        for (near, times), steps in zip(SOONER.items(), budgets(options))
    ]
    report("fewer_steps", options, [contender_table(records)], found, records, page="performance.md")


if __name__ == "__main__":
    main()

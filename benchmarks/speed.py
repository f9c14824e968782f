"""Time and memory of an inversion of one 128 x 128 scene, and where the time goes.

Each case runs in a fresh process with ``--workers`` threads and inverts ``--scenes`` scenes one after the other. The
first call of a process includes what is computed once: moments of w and of the features. Peak memory is the whole
process's, libraries included. Parts are timed by wrapping the functions that they are.
"""

from __future__ import annotations

import functools
import multiprocessing
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from common import SAM, Options, Record, Scene, figure, generator, parse, report
from common import table as markdown

import saminv
from saminv import Adam, Objective, Problem
from saminv.bench.speed import peak_memory
from saminv.demo.segmenter import DemoSegmenter
from saminv.optim import Escalate

CASES: dict[str, tuple[str, ...]] = {
    "W+": ("W+",),
    "SAM up to F8": SAM,
    "SAM, all spaces": (*SAM, "F10"),
}
ALL = "SAM, all spaces"
PARTS: dict[str, tuple[Any, str]] = {
    "start (nearest of random samples)": (saminv._recipe, "nearest_styles"),
    "segments": (DemoSegmenter, "__call__"),
    "synthesis": (Problem, "render"),
    "L2 and perceptual": (Objective, "reconstruction"),
    "regularisers": (Problem, "penalties"),
    "gradients": (torch.autograd, "grad"),
    "Adam": (Adam, "update"),
    "error maps and allocation": (Escalate, "_look"),
}
ONCE = ("start (nearest of random samples)", "segments")
"""Parts that an inversion does once rather than at each step."""


@contextmanager
def stopwatches() -> Iterator[Counter[str]]:
    """Add up the seconds spent in each part while the context lasts."""
    spent: Counter[str] = Counter()

    def timed(name: str, function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - begin

        return call

    with ExitStack() as stack:
        for name, (owner, attribute) in PARTS.items():
            stack.enter_context(mock.patch.object(owner, attribute, timed(name, getattr(owner, attribute))))
        yield spent


def measure(spaces: Sequence[str], options: Options) -> Record:
    """Time the inversions of one case; to be called in a process of its own."""
    torch.set_num_threads(options.workers)
    generator()
    loaded = peak_memory()
    seconds, parts = [], Counter[str]()
    for index in range(options.scenes):
        image = Scene(2 * index, True).batch.images
        with stopwatches() as spent:
            begin = time.perf_counter()
            saminv.invert(image, list(spaces), steps=options.steps)
            seconds.append(time.perf_counter() - begin)
        # The first call also measures the generator's moments, which are no part of a step.
        if index or options.scenes == 1:
            parts.update(spent)
    rest = seconds[1:] or seconds
    parts["all else"] = sum(rest) - sum(parts.values())
    average = {name: value / len(rest) for name, value in parts.items()}
    return {
        "first_seconds": seconds[0],
        "seconds": statistics.median(rest),
        "peak_gib": peak_memory(),
        "loaded_gib": loaded,
        "once_seconds": {name: average.get(name, 0.0) for name in ONCE},
        "step_ms": {n: 1000 * average.get(n, 0.0) / options.steps for n in [*PARTS, "all else"] if n not in ONCE},
    }


def in_own_process(spaces: Sequence[str], options: Options) -> Record:
    """Measure a case in a fresh process, whose peak memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, tuple(spaces), options).result()


def case_table(found: dict[str, Record]) -> str:
    """Seconds and memory by case."""
    keys = ("first_seconds", "seconds", "peak_gib", "loaded_gib")
    headers = ["Inversion", "first call (s)", "later calls (s)", "peak memory (GiB)", "before it (GiB)"]
    return markdown(headers, [[name, *(record[key] for key in keys)] for name, record in found.items()])


def part_table(found: dict[str, Record]) -> str:
    """Milliseconds of a step by part and case, and the seconds of what is done once."""
    names = list(found)
    steps = list(found[ALL]["step_ms"])
    rows = [[f"{part} (ms per step)", *(found[name]["step_ms"][part] for name in names)] for part in steps]
    rows.append(["one step in all (ms)", *(sum(found[name]["step_ms"].values()) for name in names)])
    rows += [[f"{part} (ms, once)", *(1000 * found[name]["once_seconds"][part] for name in names)] for part in ONCE]
    return markdown(["Part", *names], rows)


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse("speed", __doc__, argv, scenes=3)
    found = {name: in_own_process(spaces, options) for name, spaces in CASES.items()}
    figures = [
        figure("seconds of an inversion in all spaces, first call", found[ALL]["first_seconds"], at_most=20, unit="s"),
        figure("seconds of an inversion in all spaces, later calls", found[ALL]["seconds"], at_most=20, unit="s"),
        figure("peak memory", max(record["peak_gib"] for record in found.values()), at_most=1.5, unit="GiB"),
    ]
    records = [{"case": name, **record} for name, record in found.items()]
    report("speed", options, [case_table(found), part_table(found)], figures, records, page="performance.md")


if __name__ == "__main__":
    main()

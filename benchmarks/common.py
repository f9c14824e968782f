"""What the benchmarks share: held-out scenes, inversions kept on disk, runs that go on where they stopped, reports.

A benchmark is a task that turns one scene into a record of plain JSON values, and a summary of all records. Scenes are
worked on by several processes of one thread each. Records and inversions are kept below ``--cache``, under keys that
hold the settings, the weights and the code, so an interrupted run continues, benchmarks share their inversions, and
nothing stale is ever used.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import math
import multiprocessing
import os
import platform
import shlex
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import saminv
from saminv import Solution, SolutionError, Status
from saminv._recipe import DEFAULT_TAU, START_TRUNCATION
from saminv.demo import SceneBatch, sample_scenes
from saminv.editing.directions import BUNDLED as DIRECTIONS
from saminv.generators import AbstractGenerator
from saminv.metrics import AbstractMetric, get_metric
from saminv.optim.start import nearest_styles
from saminv.weights import cards

HELD_OUT = 50_000
"""Seed of the first scene. Trainings draw theirs from 1,000,000 on or by latents, calibrations at 80,000 and 90,000."""
FOLDER = Path(__file__).resolve().parent
SAM = ("W+", "F4", "F6", "F8")
METHODS: dict[str, tuple[str, ...]] = {
    "W": ("W",),
    "W+": ("W+",),
    "F4": ("F4",),
    "F6": ("F6",),
    "F8": ("F8",),
    "F10": ("F10",),
    "SAM": SAM,
    "SAM with F10": (*SAM, "F10"),
}
"""Spaces of each compared inversion by its name; those of one space beside W+ use it for the whole picture."""
SINGLE = ("W", "W+", "F4", "F6", "F8", "F10")
Record = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """The command line.

    Attributes:
        scenes: Number of scenes; every other one, the first included, has strangers.
        steps: Of each inversion, or of each training.
        workers: Processes of one thread each.
        out: The JSON file.
        docs: Folder of the documentation whose marked blocks are replaced; None leaves it alone.
        cache: Folder of what unfinished runs keep.
        command: How this run was called.
    """

    scenes: int
    steps: int
    workers: int
    out: Path
    docs: Path | None
    cache: Path
    command: str


def parse(
    name: str, description: str | None, argv: Sequence[str] | None = None, scenes: int = 48, steps: int = 300
) -> Options:
    """Read the command line of the benchmark ``name``."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=_positive, default=scenes, help=f"number of scenes (default {scenes})")
    parser.add_argument(
        "--steps", type=_positive, default=steps, help=f"steps of each inversion or training (default {steps})"
    )
    parser.add_argument(
        "--workers",
        type=_positive,
        default=2,
        help="processes, or threads of speed.py and of trainings (default 2)",
    )
    parser.add_argument("--out", type=Path, default=FOLDER / "results" / f"{name}.json", help="the JSON file")
    docs = FOLDER.parent / "docs"
    parser.add_argument(
        "--docs", type=Path, nargs="?", const=docs, help="put the tables into the docs (in this folder)"
    )
    parser.add_argument("--cache", type=Path, default=FOLDER.parent / "runs" / "benchmarks", help="unfinished work")
    known = parser.parse_args(argv)
    command = shlex.join(["python", f"benchmarks/{name}.py", *argv])
    return Options(known.scenes, known.steps, known.workers, known.out, known.docs, known.cache, command)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 up")
    return value


@dataclass(frozen=True, eq=False)
class Scene:
    """One held-out scene; even ones have strangers unless they are left out."""

    index: int
    strangers: bool

    @classmethod
    @functools.lru_cache(maxsize=4)
    def numbered(cls, index: int) -> Scene:
        """The scene of an index, with strangers if it is even."""
        return cls(index, index % 2 == 0)

    @functools.cached_property
    def batch(self) -> SceneBatch:
        """Picture `[1, 3, 128, 128]`, factors, labels and masks of strangers."""
        return sample_scenes(1, HELD_OUT + self.index, self.strangers)

    @functools.cached_property
    def clean(self) -> Scene:
        """The same scene without strangers."""
        return Scene(self.index, False)

    @functools.cached_property
    def start(self) -> Tensor:
        """Where ``saminv.invert`` starts by default, `[1, L, D]`; found once for all inversions of the scene."""
        nearest = nearest_styles(generator(), self.batch.images, metric())[0]
        return generator().statistics().mean_w.to(nearest).lerp(nearest, START_TRUNCATION)


def scenes_of_batch(batch: int, together: int, count: int) -> list[Scene]:
    """Scenes of a batch out of ``count``: batches of an even number have strangers, the others have none."""
    first = 2 * together * (batch // 2) + batch % 2
    return [Scene.numbered(index) for index in range(first, count, 2)[:together]]


def batches_of(together: int, count: int) -> list[int]:
    """Numbers of the batches that hold ``count`` scenes."""
    pairs = -(-count // (2 * together))
    return [batch for batch in range(2 * pairs) if scenes_of_batch(batch, together, count)]


@functools.lru_cache(maxsize=1)
def generator() -> AbstractGenerator:
    """The demo's generator."""
    return saminv.load_generator("demo")


@functools.lru_cache(maxsize=1)
def metric() -> AbstractMetric:
    """The demo's perceptual metric."""
    return get_metric("demo")


def invert(scene: Scene, spaces: Sequence[str], options: Options, tau: float = DEFAULT_TAU, **choices: Any) -> Solution:
    """Invert a scene by ``saminv.invert``, or take the inversion from the cache; invertibility is measured."""
    choices = {"invertibility": "measured", **choices}
    key = ["invert", scene.index, scene.strangers, list(spaces), tau, options.steps, choices]

    def make() -> Solution:
        arguments = {"generator": "demo", "encoder": scene.start, "steps": options.steps, **choices}
        return saminv.invert(scene.batch.images, list(spaces), tau, **arguments)

    return kept(key, make, options)


def kept(key: Any, make: Callable[[], Solution], options: Options) -> Solution:
    """The solution of a ``key``, from the cache or made and kept there."""
    folder = options.cache / "inversions"
    path = folder / f"{_digest(json.dumps([key, state_of_code(inversion_only=True)]))}.safetensors"
    try:
        return Solution.load(path, generator=generator())
    except SolutionError:
        solution = make()
    if bool((solution.status == Status.INTERRUPTED).any()):
        raise KeyboardInterrupt
    folder.mkdir(parents=True, exist_ok=True)
    solution.save(path)
    return solution


@functools.lru_cache(maxsize=2)
def state_of_code(inversion_only: bool = False) -> str:
    """Digest of the weights and the code that a measurement, or an inversion alone, depends on."""
    package = Path(saminv.__file__).parent
    unused = {"train", "checkpoints", "cli"} | ({"editing"} if inversion_only else set())
    files = [path for path in sorted(package.rglob("*.py")) if path.parent.name not in unused]
    files = [path for path in files if not path.name.startswith("train_")]
    inverting = [FOLDER / "common.py", FOLDER / "formulations.py"]
    digest = hashlib.sha256(torch.__version__.encode())
    for path in files + (inverting if inversion_only else sorted(FOLDER.glob("*.py"))):
        digest.update(path.read_bytes())
    for name, card in sorted(cards().items()):
        # Directions matter to edits only.
        if not (inversion_only and name == DIRECTIONS):
            digest.update(f"{name} {card.sha256}".encode())
    return digest.hexdigest()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def run(name: str, task: Callable[[Scene, Options], Record], indices: Sequence[int], options: Options) -> list[Record]:
    """Do the ``task`` for the scenes ``indices`` and return its records in their order.

    Each record is written down as soon as it is there; a later call does only what is missing.
    """
    key = _digest(json.dumps([name, options.steps, state_of_code()]))
    options.cache.mkdir(parents=True, exist_ok=True)
    partial = options.cache / f"{name}-{key}.jsonl"
    known = {record["scene"]: record for record in _read_lines(partial)}
    todo = [index for index in indices if index not in known]
    try:
        with (
            open(partial, "a", encoding="utf-8") as file,
            closing(_records(task, todo, options)) as records,
            tqdm(total=len(indices), initial=len(indices) - len(todo), unit="scene", desc=name) as bar,
        ):
            for record in records:
                known[record["scene"]] = record
                file.write(json.dumps(record) + "\n")
                file.flush()
                bar.update()
    except KeyboardInterrupt:
        print(f"\n{name} was interrupted. Call it again with the same settings, and it goes on.", file=sys.stderr)
        raise SystemExit(130) from None
    return [known[index] for index in indices]


def _read_lines(path: Path) -> Iterator[Record]:
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            yield json.loads(line)
        except ValueError:
            # The process was killed while it wrote this line.
            continue


def _records(task: Callable[[Scene, Options], Record], todo: Sequence[int], options: Options) -> Iterator[Record]:
    work = functools.partial(_work, task, options)
    if options.workers == 1 or len(todo) <= 1:
        torch.set_num_threads(1)
        yield from map(work, todo)
        return
    # Set before the workers start: libraries read it when they are loaded.
    os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(min(options.workers, len(todo)), _begin_worker) as pool:
        yield from pool.imap_unordered(work, todo)
        pool.close()
        pool.join()


def _begin_worker() -> None:
    torch.set_num_threads(1)
    saminv.keep_memory()
    # Ctrl-C reaches all processes; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(task: Callable[[Scene, Options], Record], options: Options, index: int) -> Record:
    return {"scene": index, **plain(task(Scene.numbered(index), options))}


def plain(value: Any) -> Any:
    """A value as JSON has it: tensors and numbers that are not finite become floats and None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def values(records: Sequence[Record], *path: str) -> list[float]:
    """The numbers at a path of keys, of the records that have one there."""
    found = []
    for record in records:
        value: Any = record
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            found.append(float(value))
    return found


def median(records: Sequence[Record], *path: str) -> float | None:
    """Median of the numbers at a path of keys; None without any."""
    found = values(records, *path)
    return statistics.median(found) if found else None


def ratio(part: float | None, whole: float | None) -> float | None:
    """``part / whole``; None if one of them is missing or the whole is 0."""
    return part / whole if part is not None and whole else None


def figure(
    name: str, value: float | None, *, at_least: float | None = None, at_most: float | None = None, unit: str = ""
) -> Record:
    """A measured figure and the bar it is held against, if any."""
    bar = f"≥ {at_least:g}" if at_least is not None else f"≤ {at_most:g}" if at_most is not None else ""
    met = None
    if value is not None and bar:
        met = value >= at_least if at_least is not None else value <= (at_most or 0.0)
    return {"figure": name, "value": value, "unit": unit, "bar": f"{bar} {unit}".strip() if bar else "", "met": met}


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]], digits: int = 2) -> str:
    """A Markdown table; numbers are rounded, and what is missing is a dash."""
    lines = [_row(headers), _row(["---"] + ["---:"] * (len(headers) - 1))]
    return "\n".join(lines + [_row([_cell(value, digits) for value in row]) for row in rows])


def figure_table(figures: Sequence[Record]) -> str:
    """A table of figures with their bars."""
    said = {True: "yes", False: "**no**", None: ""}
    rows = [(f["figure"], _with_unit(f["value"], f["unit"]), f["bar"], said[f["met"]]) for f in figures]
    return table(["Figure", "Measured", "Bar", "Met"], rows)


def _with_unit(value: float | None, unit: str) -> str:
    return _cell(value, 3) if value is None else f"{_cell(value, 3)} {unit}".rstrip()


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: Any, digits: int) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def report(
    name: str,
    options: Options,
    tables: Sequence[str],
    figures: Sequence[Record],
    records: Sequence[Record],
    page: str = "quality.md",
) -> None:
    """Print the tables, write the JSON file, and put the tables into the docs if asked for."""
    text = "\n\n".join([f"`{options.command}`", *tables, figure_table(figures)])
    print(f"\n{text}\n")
    content = {
        "benchmark": name,
        "command": options.command,
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "settings": {"scenes": options.scenes, "steps": options.steps, "workers": options.workers},
        "machine": machine(),
        "versions": versions(),
        "weights": {key: card.sha256 for key, card in sorted(cards().items())},
        "figures": list(figures),
        "tables": list(tables),
        "scenes": list(records),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(plain(content), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {options.out}")
    if options.docs is not None:
        insert(options.docs / page, name, text)


def insert(path: Path, name: str, text: str) -> None:
    """Replace what stands between the markers ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->`` of a page.

    Raises:
        SystemExit: If there is no such page or it has no such markers.
    """
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    head, found, rest = page.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{path} has no place for the tables; add the lines {begin} and {end} to it.")
    path.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}", encoding="utf-8")
    print(f"wrote the block {name} of {path}")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        names = [
            line.partition(":")[2].strip() for line in information.read_text().splitlines() if "model name" in line
        ]
        processor = names[0] if names else processor
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else None
    return {"system": platform.system(), "processor": processor, "cores": os.cpu_count(), "memory_gib": memory}


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    packages = {name: version(name) for name in ("torch", "numpy")}
    return {"python": platform.python_version(), "saminv": saminv.__version__, **packages}

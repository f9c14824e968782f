"""A run over many pictures that can be killed at any moment and goes on where it stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from .._arguments import make_recipe
from .._errors import InputError, SolutionError, Status
from .._recipe import Recipe
from .._sources import Item, collect
from ..solution import Solution
from .manifest import Manifest, Record, read_manifest
from .stream import Outcome, file_hash, numbers, stream
from .workers import stream_in_processes
from .writers import SolutionWriter

FAILED = "failed"
Writer = Callable[[str, Solution], dict[str, str]]


@dataclass
class RunReport:
    """What a run has come to.

    Attributes:
        folder: Of the run.
        total: Pictures that were asked for.
        done: Of these, inverted now or before.
        failed: Of these, passed over, with the reason by name.
        fresh: Pictures that ended in this call.
        seconds: That the inversions of this call took.
        psnr: Median over those that are done, in dB; None where there are none.
    """

    folder: Path
    total: int
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    fresh: int = 0
    seconds: float = 0.0
    psnr: float | None = None


def run(
    images: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    spaces: Sequence[str] | None = None,
    tau: Any = None,
    *,
    batch: int = 8,
    workers: int = 1,
    limit: int | None = None,
    shuffle_seed: int | None = None,
    sequence: bool = False,
    retry: bool = False,
    keep: Sequence[str] = ("solution", "image"),
    write: Writer | None = None,
    progress: bool = True,
    **settings: Any,
) -> RunReport:
    """Invert many pictures into a folder.

    Pictures share a batch; one that has ended makes room for the next. Each result is written atomically and then
    recorded in ``manifest.jsonl``, so the same call goes on after an interruption, and pictures that are done already
    are not done again unless their file or their results changed.

    Args:
        images: Files and folders, see :func:`saminv.runs.collect`.
        out: Folder of the run, made if absent.
        spaces, tau, settings: As for :func:`saminv.invert`.
        batch: Pictures at a time; results depend on it only by rounding.
        workers: Processes, each with a batch of its own; on several GPUs they are dealt out.
        limit: Number of pictures to take.
        shuffle_seed: Take them in a random order, so that a limit gives a random part.
        sequence: Start each picture from the solution of the one before, one at a time: those of a folder in natural
            order, files in the order in which they are named.
        retry: Try those that failed before once more.
        keep: Of "solution", "image" and "sheet".
        write: Writes something else instead: a picklable callable from name and solution to files by kind, whose paths
            are below ``out``.
        progress: Show a bar over the pictures.

    Returns:
        How many were done and which failed. Ctrl-C ends the run with ``KeyboardInterrupt``; what has ended is kept.

    Raises:
        InputError: For anything unusable.
        RunError: If the folder is in use, or holds a run with other settings.
        WorkerError: If one of several processes failed; call again to go on.
        OutputError: If something cannot be written, for example as the disk is full; call again to go on.
    """
    _check(batch, workers, sequence, shuffle_seed)
    folder, writer = Path(out), SolutionWriter(Path(out), tuple(keep)) if write is None else write
    settings = {"spaces": spaces, "tau": tau, **settings}
    recipe = make_recipe(**settings)
    recipe.warn_of_inert()
    if sequence and recipe.before:
        raise InputError(f"A sequence goes from solution to solution; preset={recipe.preset!r} has stages of its own.")
    header = {**_signature(recipe), "keep": _plain(writer), "sequence": sequence}
    with Manifest.open(folder, header) as manifest:
        items = _items(images, folder, manifest.records, limit, shuffle_seed)
        report = RunReport(folder, len(items))
        todo = [item for item in items if not _is_done(item, manifest, retry)]
        if sequence:
            found = _in_sequence(recipe, items, todo, manifest, writer)
        elif workers == 1:
            found = _here(recipe, todo, batch, writer)
        else:
            found = stream_in_processes(settings, todo, batch, workers, writer)
        _gather(found, manifest, report, len(items) - len(todo), progress)
        return _count(report, items, manifest.records)


def progress_of(
    images: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    limit: int | None = None,
    shuffle_seed: int | None = None,
) -> RunReport:
    """How far a run over pictures is, for example after Ctrl-C; the arguments are those of :func:`run`.

    Raises:
        InputError: If there are no such pictures.
        RunError: If the folder holds no run.
    """
    _, records = read_manifest(out)
    items = _items(images, Path(out), records, limit, shuffle_seed)
    return _count(RunReport(Path(out), len(items)), items, records)


def _items(
    images: Sequence[str | os.PathLike[str]],
    folder: Path,
    records: Mapping[str, Record],
    limit: int | None,
    shuffle_seed: int | None,
) -> list[Item]:
    """The pictures, those that were met before under the names that they had."""
    known = {record["source"]: name for name, record in records.items() if record.get("source")}
    return collect(images, out=folder, known=known, limit=limit, shuffle_seed=shuffle_seed)


def _check(batch: int, workers: int, sequence: bool, shuffle_seed: int | None) -> None:
    for name, value in (("batch", batch), ("workers", workers)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a whole number from 1 up, got {value!r}.")
    if sequence and workers > 1:
        raise InputError("A sequence goes from each picture to the next, so it takes one worker; leave workers at 1.")
    if sequence and shuffle_seed is not None:
        raise InputError("A sequence is taken in order; leave out either the sequence or the seed of a random order.")


def _is_done(item: Item, manifest: Manifest, retry: bool) -> bool:
    """Whether the manifest has the picture as it is now, and its results are there."""
    record = manifest.records.get(item.name)
    if record is None:
        return False
    try:
        same = file_hash(item.path) == record["sha256"]
    except OSError:
        same = record["sha256"] == ""
    if record["status"] == FAILED:
        return same and not retry
    return same and all((manifest.folder / file).is_file() for file in record["files"].values())


def _here(recipe: Recipe, todo: Sequence[Item], batch: int, writer: Writer) -> Iterator[Record]:
    """Records of the pictures, inverted in this process."""
    for outcome in stream(recipe, iter(todo), batch):
        yield record_of(outcome, writer)


def record_of(outcome: Outcome, writer: Writer) -> Record:
    """Write the results of a picture and return its line of the manifest."""
    record: Record = {
        "name": outcome.item.name,
        "source": str(outcome.item.path),
        "sha256": outcome.sha256,
        "status": FAILED,
        "reason": outcome.reason,
        "warnings": outcome.warnings,
        "seconds": round(outcome.seconds, 3),
        "metrics": {},
        "files": {},
    }
    if outcome.solution is not None:
        record["files"] = writer(outcome.item.name, outcome.solution)
        record["status"] = Status(int(outcome.solution.status[0])).name.lower()
        record["metrics"] = numbers(outcome.solution)
        record["metric"] = outcome.solution.provenance.get("metric")
    return record


def _in_sequence(
    recipe: Recipe, items: Sequence[Item], todo: Sequence[Item], manifest: Manifest, writer: Writer
) -> Iterator[Record]:
    """Records of the pictures, each of which starts from the solution before it."""
    pending, before = set(todo), None
    for item in items:
        if item not in pending:
            before = _solution_of(manifest.records[item.name], manifest, recipe) or before
            continue
        started = recipe if before is None else replace(recipe, encoder=before)
        [outcome] = stream(started, iter([item]), 1)
        before = outcome.solution or before
        yield record_of(outcome, writer)


def _solution_of(record: Record, manifest: Manifest, recipe: Recipe) -> Solution | None:
    """The solution of a picture that was done before, if it was kept."""
    if "solution" not in record["files"]:
        return None
    try:
        return Solution.load(manifest.folder / record["files"]["solution"], generator=recipe.generator)
    except SolutionError:
        return None


def _gather(found: Iterator[Record], manifest: Manifest, report: RunReport, before: int, progress: bool) -> None:
    """Write records down as they come, and show how far the run is."""
    quality, failures, begun = [], 0, time.perf_counter()
    bar = tqdm(total=report.total, initial=before, unit="image", disable=not progress, smoothing=0)
    with bar:
        for record in found:
            manifest.append(record)
            report.fresh, report.seconds = report.fresh + 1, time.perf_counter() - begun
            failures += record["status"] == FAILED
            quality.append(record["metrics"].get("psnr"))
            known = [value for value in quality if value is not None]
            if known:
                bar.set_postfix(psnr=f"{statistics.median(known):.2f} dB", failed=failures, refresh=False)
            bar.update()


def _count(report: RunReport, items: Sequence[Item], records: Mapping[str, Record]) -> RunReport:
    quality = []
    for item in items:
        record = records.get(item.name)
        if record is None:
            continue
        if record["status"] == FAILED:
            report.failed[item.name] = record["reason"]
            continue
        report.done += 1
        quality.append(record["metrics"].get("psnr"))
    known = [value for value in quality if value is not None]
    report.psnr = statistics.median(known) if known else None
    return report


def _signature(recipe: Recipe) -> dict[str, Any]:
    """Everything that results depend on, as plain JSON values."""
    more = {
        name: _plain(getattr(recipe, name))
        for name in ("candidates", "segmenter", "invertibility", "encoder", "descent", "fit_mode", "metric")
    }
    settings = {key: value for key, value in recipe.settings.items() if key != "saminv"}
    if recipe.before:
        more["before"] = [_signature(stage) for stage in recipe.before]
    losses = {name: f"{loss.name} {_plain(loss)}" for name, loss in recipe.losses.items()}
    return {**settings, **more, "losses": losses}


def _plain(thing: Any) -> Any:
    """A setting as a JSON value that is the same for the same setting; arrays and networks by their hash."""
    if thing is None or isinstance(thing, (str, bool, int, float)):
        return thing
    if isinstance(thing, (list, tuple)):
        return [_plain(item) for item in thing]
    if isinstance(thing, Mapping):
        return {str(key): _plain(value) for key, value in thing.items()}
    if isinstance(thing, (Tensor, np.ndarray)):
        array = np.ascontiguousarray(torch.as_tensor(thing).detach().cpu().numpy())
        return f"{array.dtype}{list(array.shape)} {hashlib.sha256(array.tobytes()).hexdigest()[:16]}"
    if isinstance(thing, nn.Module):
        arrays = json.dumps(_plain(dict(sorted(thing.state_dict().items()))))
        return f"{type(thing).__name__} {hashlib.sha256(arrays.encode()).hexdigest()[:16]}"
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        # A run may be moved to another place.
        names = [
            item.name for item in dataclasses.fields(thing) if item.compare and item.name not in ("folder", "generator")
        ]
        return {type(thing).__name__: {name: _plain(getattr(thing, name)) for name in names}}
    return str(thing)

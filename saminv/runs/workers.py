"""Several processes that invert pictures for one run.

The first process deals out pictures and writes the manifest; the others invert and write results. If the first one is
killed, the others end at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from .._errors import SaminvError, WorkerError
from .._memory import keep_memory
from .._sources import Item
from .manifest import Record
from .stream import stream


def stream_in_processes(
    settings: Mapping[str, Any], todo: Sequence[Item], batch: int, workers: int, writer: Any
) -> Iterator[Record]:
    """Records of pictures that several processes invert, in the order in which they end."""
    context = multiprocessing.get_context("spawn")
    items = iter(todo)
    processes, lines = [], []
    count = min(workers, max(len(todo), 1))
    try:
        for rank in range(count):
            mine, theirs = context.Pipe()
            arguments = (theirs, _own_share(settings, rank), batch, writer, _threads(count))
            process = context.Process(target=_work, args=arguments, daemon=True)
            with _deaf_to_ctrl_c():
                process.start()
            theirs.close()
            processes.append(process)
            lines.append(mine)
        yield from _deal(lines, items)
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Let processes that start here ignore Ctrl-C, which reaches all of them: the first one ends the others."""
    # Only the main thread may say so; elsewhere the others at least say little when they end.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _own_share(settings: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """The settings of one process, with a GPU of its own where there are several."""
    device = str(settings.get("device", "auto"))
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return {**settings, "device": f"cuda:{rank % torch.cuda.device_count()}"}
    return dict(settings)


def _threads(workers: int) -> int:
    """Threads of each process: more threads than cores ruin one another."""
    return max(1, torch.get_num_threads() // workers)


def _deal(lines: list[Connection], items: Iterator[Item]) -> Iterator[Record]:
    """Answer the processes: a picture for each question, until there are none; yields their records."""
    while lines:
        for line in wait(lines):
            assert isinstance(line, Connection)
            try:
                kind, content = line.recv()
            except EOFError as error:
                raise WorkerError(
                    "A worker ended unexpectedly, perhaps for want of memory. What is done is kept: call again to go "
                    "on, with a smaller batch or fewer workers."
                ) from error
            if kind == "next":
                line.send(next(items, None))
            elif kind == "record":
                yield content
            elif kind == "error":
                raise content
            else:
                lines.remove(line)


def _work(line: Connection, settings: dict[str, Any], batch: int, writer: Any, threads: int) -> None:
    """What a further process does."""
    from .._arguments import make_recipe
    from .folder import record_of

    _end_with_parent()
    torch.set_num_threads(threads)
    keep_memory()
    try:
        for outcome in stream(make_recipe(**settings), _asked(line), batch):
            line.send(("record", record_of(outcome, writer)))
        line.send(("end", None))
    except KeyboardInterrupt:
        # The first process got it too, and says so.
        os._exit(1)
    except Exception as error:
        line.send(
            ("error", error if isinstance(error, SaminvError) else WorkerError(f"{type(error).__name__}: {error}"))
        )


def _asked(line: Connection) -> Iterator[Item]:
    while True:
        line.send(("next", None))
        item = line.recv()
        if item is None:
            return
        yield item


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

"""Contenders take turns, each in a fresh process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
from tqdm import tqdm

from .._errors import BenchError
from .._memory import keep_memory


def in_turns(names: Sequence[str]) -> list[str]:
    """Names forth and back (A B B A), so that a machine that gets slower with time favours none; a single one once."""
    return [*names, *reversed(names)] if len(names) > 1 else list(names)


def in_own_process(function: Callable[..., Any], threads: int, *arguments: Any) -> Any:
    """What a function returns in a fresh process with so many threads.

    Raises:
        BenchError: If something ended the process, such as a machine without memory.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_with_threads, function, threads, *arguments).result()
        except BrokenProcessPool:
            message = f"The process of {function.__name__} was ended from outside; the memory may not have sufficed."
            raise BenchError(message) from None


def _with_threads(function: Callable[..., Any], threads: int, *arguments: Any) -> Any:
    torch.set_num_threads(threads)
    keep_memory()
    return function(*arguments)


class Processes:
    """Runs functions one after another, each in a process of its own, under a bar.

    Attributes:
        threads: Of the CPU in each of them; torch's own choice where None.
        bar: Counts what has run.
    """

    def __init__(self, threads: int | None, total: int, progress: bool = False) -> None:
        self.threads = torch.get_num_threads() if threads is None else threads
        self.bar = tqdm(total=total, disable=not progress, unit="case", desc="bench")

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns."""
        found = in_own_process(function, self.threads, *arguments)
        self.bar.update()
        return found

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

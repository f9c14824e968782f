"""What a machine can do at best: matrix products, copies, convolutions."""

from __future__ import annotations

import functools
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

WIDTHS = (64, 128, 256, 512)
"""Channels of the convolutions; their sides are such that each costs about the same."""


@dataclass(frozen=True)
class Ceilings:
    """The best of several runs.

    Attributes:
        device: The machine, in words.
        dtype: Of the numbers, such as "float32".
        matmul: Of square matrices, in GFLOP/s; a multiplication and an addition are two.
        copy: Bytes read and written by a copy, in GB/s.
        convolution: 3x3 in channels_last memory, in GFLOP/s by the number of channels.
    """

    device: str
    dtype: str
    matmul: float
    copy: float
    convolution: dict[int, float]


def device_name(device: str | torch.device) -> str:
    """A device in words, with the number of threads where it is the CPU."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def wait(device: torch.device) -> None:
    """Wait until everything that a device was given is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(function: Callable[[], object], device: torch.device, repeats: int = 5, warm_up: int = 1) -> list[float]:
    """Seconds of each of several calls, after calls that do not count."""
    found = []
    for index in range(warm_up + repeats):
        wait(device)
        begin = time.perf_counter()
        function()
        wait(device)
        if index >= warm_up:
            found.append(time.perf_counter() - begin)
    return found


def middle(seconds: Sequence[float]) -> float:
    """Median."""
    return statistics.median(seconds)


def peak_memory(device: torch.device | None = None) -> float:
    """Peak memory in GiB: of what torch holds on a GPU, else of this process."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    status = Path("/proc/self/status")
    # Where there is one, the kernel's own mark: the other one is inherited from the process that started this one.
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    if found:
        return int(found[1]) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


@torch.no_grad()
def measure_ceilings(
    device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, size: int = 2048, repeats: int = 5
) -> Ceilings:
    """Measure what a machine can do at best.

    Args:
        device: "cpu", "cuda" or another device of torch.
        dtype: Of the numbers.
        size: Side of the matrices; the other measurements are scaled with it.
        repeats: Runs of each, of which the best counts.
    """
    device = torch.device(device)

    def best(function: Callable[[], object]) -> float:
        return min(seconds_of(function, device, repeats))

    matrix = torch.randn(size, size, device=device, dtype=dtype)
    numbers = torch.randn(8 * size * size, device=device, dtype=dtype)
    into = torch.empty_like(numbers)
    speeds = {}
    for width in WIDTHS:
        side = max(4, size * 8 // width)
        x = torch.randn(1, width, side, side, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        kernel = torch.randn(width, width, 3, 3, device=device, dtype=dtype)
        kernel = kernel.contiguous(memory_format=torch.channels_last)
        work = 2 * 9 * width * width * side * side
        speeds[width] = work / best(functools.partial(F.conv2d, x, kernel, padding=1)) / 1e9
    return Ceilings(
        device=device_name(device),
        dtype=str(dtype).removeprefix("torch."),
        matmul=2 * size**3 / best(lambda: matrix @ matrix) / 1e9,
        copy=2 * numbers.nbytes / best(lambda: into.copy_(numbers)) / 1e9,
        convolution=speeds,
    )

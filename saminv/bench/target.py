"""Time to a known target: which solver comes near it how soon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .._arguments import LONE_RATE
from .._errors import InputError
from ..optim import LBFGS, AbstractSolver, Adam, Relay, Schedule
from .ceilings import device_name
from .descent import Track, descend, reached
from .processes import Processes, in_turns
from .workload import Workload

SOLVERS: dict[str, AbstractSolver] = {
    "adam": Adam(rate=LONE_RATE),
    "lbfgs": LBFGS(),
    "relay": Relay(Adam(rate=0.3, schedule=Schedule(ramp_down=0.0)), LBFGS(), share=0.4),
}
"""Contenders by name: the default, L-BFGS, and one after the other as in ``benchmarks/fewer_steps.py``."""
LEVELS = (20.0, 25.0, 30.0)


@dataclass
class TargetReport:
    """Who reached what when.

    Attributes:
        workload: What was solved.
        device: The machine, in words.
        threads: Of the CPU.
        levels: PSNR in dB that count as reached.
        tracks: Of every run, by contender.
    """

    workload: Workload
    device: str
    threads: int
    levels: Sequence[float]
    tracks: dict[str, list[Track]]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "workload": asdict(self.workload),
            "device": self.device,
            "threads": self.threads,
            "tracks": {name: [asdict(run) for run in runs] for name, runs in self.tracks.items()},
            "reached": reached(self.tracks, self.levels),
        }


def measure_target(
    workload: Workload,
    *,
    solvers: Sequence[str] = tuple(SOLVERS),
    steps: int = 200,
    every: int = 5,
    levels: Sequence[float] = LEVELS,
    threads: int | None = None,
    progress: bool = False,
) -> TargetReport:
    """Let solvers come down to a target that the generator has rendered, from the mean w, each in its own process.

    They take turns forth and back. All minimise the same sum of L2 and LPIPS; their points are looked at in float32
    while no clock runs.

    Args:
        workload: What is solved.
        solvers: Names in ``SOLVERS``.
        steps: Of each run.
        every: Steps between two looks.
        levels: PSNR in dB that count as reached.
        threads: Of the CPU; torch's own choice where None.
        progress: Show a bar over the runs.

    Raises:
        InputError: If a solver is unknown.
    """
    unknown = [name for name in solvers if name not in SOLVERS]
    if unknown or not solvers:
        raise InputError(f"solvers must be among {', '.join(SOLVERS)}; got {', '.join(unknown) or 'none'}.")
    order = in_turns(list(dict.fromkeys(solvers)))
    with Processes(threads, len(order) + 1, progress) as run:
        device = run(device_name, workload.device)
        runs = [(name, run(descend, workload, SOLVERS[name], steps, every)) for name in order]
    tracks = {name: [track for which, track in runs if which == name] for name in order}
    return TargetReport(workload, device, run.threads, sorted(levels), tracks)

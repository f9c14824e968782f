"""How contenders come down: what was reached after how many seconds, looked at by one evaluator while no clock runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from .._types import Latents, map_latents
from ..optim import AbstractSolver, Problem, solve
from .ceilings import middle, peak_memory, wait
from .workload import Workload, descent_problem

WARM_UP = 2


@dataclass(frozen=True)
class Track:
    """What was seen of one descent.

    Attributes:
        steps: After how many steps.
        seconds: That these took.
        psnr: Of the image of the batch that is worst, in dB.
        loss: Largest loss of an image of the batch.
        peak_gib: Peak memory.
    """

    steps: list[int]
    seconds: list[float]
    psnr: list[float]
    loss: list[float]
    peak_gib: float

    def first(self, level: float) -> int | None:
        """Index of the first look at which the PSNR was as good as a level, or None."""
        return next((index for index, value in enumerate(self.psnr) if value >= level), None)


Tracks = Mapping[str, Sequence[Track]]
"""Runs of each contender, by its name."""


def reached(tracks: Tracks, levels: Sequence[float]) -> dict[str, dict[str, Any]]:
    """When each contender reached each PSNR, as plain JSON values: medians, and each run; None if a run never did."""
    found: dict[str, dict[str, Any]] = {}
    for name, runs in tracks.items():
        found[name] = {}
        for level in levels:
            places = [(run, index) for run in runs if (index := run.first(level)) is not None]
            seconds = [run.seconds[index] for run, index in places]
            steps = [run.steps[index] for run, index in places]
            row = {"steps": middle(steps), "seconds": middle(seconds), "runs": seconds} if seconds else None
            found[name][f"{level:g}"] = row if len(places) == len(runs) else None
    return found


@dataclass
class Recorder:
    """Keeps the latents of some steps; the clock stands while it does.

    Attributes:
        device: That is waited for.
        every: Steps between two looks.
        last: Step that is looked at in any case.
    """

    device: torch.device
    every: int
    last: int
    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    points: list[Latents] = field(default_factory=list)
    _spent: float = 0.0
    _since: float = 0.0

    def start(self, latents: Latents) -> None:
        """Keep the start, and let the clock run."""
        self._since = time.perf_counter()
        self._keep(0, latents, 0.0)

    def see(self, step: int, latents: Callable[[], Latents]) -> None:
        """Look at the latents after a step, if it is its turn."""
        if step % self.every and step != self.last:
            return
        wait(self.device)
        self._keep(step, latents(), self._spent + time.perf_counter() - self._since)

    def _keep(self, step: int, latents: Latents, seconds: float) -> None:
        self.steps.append(step)
        self.seconds.append(seconds)
        self.points.append(map_latents(lambda tensor: tensor.detach().clone().cpu(), latents))
        wait(self.device)
        self._spent, self._since = seconds, time.perf_counter()


def descend(workload: Workload, solver: AbstractSolver, steps: int, every: int) -> Track:
    """Solve the descent of a workload in this process."""
    problem, device = descent_problem(workload), torch.device(workload.device)
    solve(problem, solver, max_steps=WARM_UP)
    recorder = Recorder(device, every, steps)
    recorder.start(problem.start())
    # The solver's own result, without a wrapper that would look for the best one.
    solve(
        problem,
        solver,
        max_steps=steps,
        callback=lambda index, state, _: recorder.see(index + 1, lambda: solver.result(state)),
    )
    peak = peak_memory(device)
    psnr, loss = evaluate(descent_problem(workload), recorder.points)
    return Track(recorder.steps, recorder.seconds, psnr, loss, peak)


@torch.no_grad()
def evaluate(problem: Problem, points: Sequence[Latents]) -> tuple[list[float], list[float]]:
    """PSNR in dB and loss at some points, of the image of the batch that is worst, in float32."""
    psnr, losses = [], []
    with exact():
        for point in points:
            y = map_latents(lambda tensor: tensor.to(problem.target), point)
            image = problem.render(y)
            parts = problem.objective.reconstruction(image, problem.prepared)
            error = (image - problem.target).square().mean(dim=(1, 2, 3)).max()
            psnr.append(float(10 * torch.log10(4 / error.clamp_min(1e-12))))
            losses.append(float(problem.objective.total(parts).max()))
    return psnr, losses


@contextmanager
def exact() -> Iterator[None]:
    """Float32 without the shortened numbers that GPUs may use for it."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before

"""Times of a step and of its parts, beside what the machine can do, beside the usual formulation, and by size."""

from __future__ import annotations

import multiprocessing
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from .._types import map_latents
from .ceilings import Ceilings, measure_ceilings, middle, seconds_of, wait
from .workload import Steps, Workload, build_problem

PARTS = ("synthesis", "L2 and perceptual", "regularisers", "gradients", "solver")
PLAIN_PART = "features of the target"
WARM_UP = 2


@dataclass(frozen=True)
class StepTime:
    """What a step of a workload costs.

    Attributes:
        workload: Which.
        milliseconds: Of a step, each that was timed, in every process.
        parts: Milliseconds by part, timed one by one.
        gflop: Operations of a step in 1e9; a multiplication and an addition are two.
        peak_gib: Peak memory: of the process on a CPU, of what torch holds on a GPU.
    """

    workload: Workload
    milliseconds: list[float]
    parts: dict[str, float]
    gflop: float
    peak_gib: float

    @property
    def median(self) -> float:
        """Median milliseconds of a step."""
        return middle(self.milliseconds)

    @property
    def gflops(self) -> float:
        """Achieved speed in GFLOP/s."""
        return self.gflop / self.median * 1000


@dataclass
class SpeedReport:
    """Everything that was measured.

    Attributes:
        ceilings: Of the machine.
        threads: Of the CPU.
        steps: The first workload, in both formulations if they were compared.
        scaling: Other batches and resolutions.
        gradient_difference: Between the formulations, relative, by latent tensor; None if they were not compared.
    """

    ceilings: Ceilings
    threads: int
    steps: list[StepTime]
    scaling: list[StepTime] = field(default_factory=list)
    gradient_difference: dict[str, float] | None = None

    @property
    def speedup(self) -> float | None:
        """How many times faster a step is than in the usual formulation; None if they were not compared."""
        return self.steps[1].median / self.steps[0].median if len(self.steps) > 1 else None

    def share_of(self, step: StepTime) -> float:
        """Achieved part of what the best of the convolutions does."""
        return step.gflops / max(self.ceilings.convolution.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "ceilings": asdict(self.ceilings),
            "threads": self.threads,
            "steps": [self._row(step) for step in self.steps],
            "scaling": [self._row(step) for step in self.scaling],
            "speedup": self.speedup,
            "gradient_difference": self.gradient_difference,
        }

    def _row(self, step: StepTime) -> dict[str, Any]:
        more = {"median_ms": step.median, "gflops": step.gflops, "share_of_convolution": self.share_of(step)}
        return {**asdict(step), **more}


def measure_speed(
    workload: Workload,
    *,
    steps: int = 5,
    threads: int | None = None,
    compare: bool = True,
    batches: Sequence[int] = (),
    resolutions: Sequence[int] = (),
    progress: bool = False,
) -> SpeedReport:
    """Time the steps of a workload, each case in a process of its own.

    With a comparison the formulations take turns (ours, theirs, theirs, ours), so that a machine that gets slower
    with time favours neither.

    Args:
        workload: What is timed.
        steps: Timed in each process, after some that do not count.
        threads: Of the CPU; torch's own choice where None.
        compare: With the usual formulation, and how far its gradients are from ours.
        batches, resolutions: Further cases, of our own formulation.
        progress: Show a bar over the cases.
    """
    threads = torch.get_num_threads() if threads is None else threads
    order = ("lean", "plain", "plain", "lean") if compare else ("lean",)
    cases = [workload.with_formulation(name) for name in order]
    further = [replace(workload, batch=batch) for batch in batches if batch != workload.batch]
    further += [replace(workload, resolution=side) for side in resolutions if side != workload.resolution]
    with tqdm(total=len(cases) + len(further) + 1 + compare, disable=not progress, unit="case", desc="bench") as bar:

        def run(function: Callable[..., Any], *arguments: Any) -> Any:
            found = in_own_process(function, threads, *arguments)
            bar.update()
            return found

        ceilings = run(measure_ceilings, workload.device)
        timed = [run(time_steps, case, steps) for case in cases]
        difference = run(gradient_difference, workload) if compare else None
        scaling = [run(time_steps, case, steps) for case in further]
    names = dict.fromkeys(order)
    merged = [_merged([one for one in timed if one.workload.formulation == name]) for name in names]
    return SpeedReport(ceilings, threads, merged, scaling, difference)


def in_own_process(function: Callable[..., Any], threads: int, *arguments: Any) -> Any:
    """What a function returns in a fresh process with so many threads."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_with_threads, function, threads, *arguments).result()


def _with_threads(function: Callable[..., Any], threads: int, *arguments: Any) -> Any:
    torch.set_num_threads(threads)
    return function(*arguments)


def time_steps(workload: Workload, count: int) -> StepTime:
    """Time the steps of a workload in this process."""
    device = torch.device(workload.device)
    steps = Steps(workload)
    seconds = seconds_of(steps.take, device, repeats=count, warm_up=WARM_UP)
    parts: dict[str, list[float]] = {}
    for _ in range(count):
        for name, spent in _parts(steps, device):
            parts.setdefault(name, []).append(1000 * spent)
    return StepTime(
        workload=workload,
        milliseconds=[1000 * value for value in seconds],
        parts={name: middle(values) for name, values in parts.items()},
        gflop=_operations(steps) / 1e9,
        peak_gib=peak_memory(device),
    )


def _parts(steps: Steps, device: torch.device) -> Iterator[tuple[str, float]]:
    """Seconds of each part of a step, which is taken."""
    problem, slots = steps.problem, steps.slots
    assert slots.state is not None
    state, clock = slots.state, _Clock(device)
    if steps.workload.formulation == "plain":
        steps.recompute()
        yield PLAIN_PART, clock.lap()
    y = map_latents(lambda tensor: tensor.detach().requires_grad_(), state.y)
    image = problem.render(y)
    yield PARTS[0], clock.lap()
    found = problem.objective.reconstruction(image, problem.prepared)
    yield PARTS[1], clock.lap()
    parts = found | problem.penalties(y)
    loss = problem.objective.total(parts)
    yield PARTS[2], clock.lap()
    leaves = [tensor for value in y.values() for tensor in value.values()]
    gradients = iter(torch.autograd.grad(loss.sum(), leaves, allow_unused=True, materialize_grads=True))
    latents = map_latents(lambda _: next(gradients), y)
    yield PARTS[3], clock.lap()
    evaluation = replace(problem.evaluate(state.y), gradients=latents)
    clock.lap()
    assert slots.batch is not None
    slots.batch.state = slots.solver.update(state, evaluation)
    yield PARTS[4], clock.lap()


class _Clock:
    """Seconds since the last look."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.lap()

    def lap(self) -> float:
        """Seconds since the last lap, with everything done that the device was given."""
        wait(self.device)
        now = time.perf_counter()
        spent, self.last = now - getattr(self, "last", now), now
        return spent


def _operations(steps: Steps) -> int:
    """Operations of a step as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        steps.take()
    return counter.get_total_flops()


def gradient_difference(workload: Workload) -> dict[str, float]:
    """Norm of the difference between the gradients of both formulations, relative to that of the usual one."""
    found = []
    for name in ("lean", "plain"):
        problem = build_problem(workload.with_formulation(name))
        gradients = problem.evaluate(problem.start()).gradients
        assert gradients is not None
        found.append({f"{s}/{k}": tensor for s, value in gradients.items() for k, tensor in value.items()})
    ours, theirs = found
    return {name: float((ours[name] - theirs[name]).norm() / theirs[name].norm()) for name in theirs}


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


def _merged(parts: Sequence[StepTime]) -> StepTime:
    """Several measurements of one workload as one."""
    times = [value for part in parts for value in part.milliseconds]
    names = list(parts[0].parts)
    by_part = {name: middle([part.parts[name] for part in parts]) for name in names}
    peak = max(part.peak_gib for part in parts)
    return replace(parts[0], milliseconds=times, parts=by_part, peak_gib=peak)

"""Times of a step and of its parts, beside what the machine can do, beside other formulations, and by size."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from .._types import flatten, map_latents
from ..optim.precision import FULL, find_precision
from .ceilings import Ceilings, measure_ceilings, middle, peak_memory, seconds_of, wait
from .processes import Processes, in_turns
from .workload import Steps, Workload, build_problem

PARTS = ("synthesis", "L2 and perceptual", "regularisers", "gradients", "solver")
PLAIN_PART = "features of the target"
COMPILED_PART = "loss and gradients"
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
        steps: The first workload, in the lean formulation and in those that it was compared with.
        scaling: Other batches and resolutions.
        gradient_difference: Of each of those from the lean one, relative, by latent tensor.
    """

    ceilings: Ceilings
    threads: int
    steps: list[StepTime]
    scaling: list[StepTime] = field(default_factory=list)
    gradient_difference: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def speedup(self) -> dict[str, float]:
        """How many times faster a step is than in each of the other formulations."""
        return {step.workload.formulation: step.median / self.steps[0].median for step in self.steps[1:]}

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
    compare: Sequence[str] = ("plain",),
    batches: Sequence[int] = (),
    resolutions: Sequence[int] = (),
    progress: bool = False,
) -> SpeedReport:
    """Time the steps of a workload, each case in a process of its own.

    Formulations that are compared take turns forth and back, so that a machine that gets slower with time favours none.

    Args:
        workload: What is timed.
        steps: Timed in each process, after some that do not count.
        threads: Of the CPU; torch's own choice where None.
        compare: Other formulations, "plain" and "compiled"; also how far their gradients are from ours.
        batches, resolutions: Further cases, of our own formulation.
        progress: Show a bar over the cases.
    """
    names = list(dict.fromkeys(("lean", *compare)))
    order = in_turns(names)
    further = [replace(workload, batch=batch) for batch in batches if batch != workload.batch]
    further += [replace(workload, resolution=side) for side in resolutions if side != workload.resolution]
    with Processes(threads, len(order) + len(further) + len(names), progress) as run:
        ceilings = run(measure_ceilings, workload.device)
        timed = [run(time_steps, workload.with_formulation(name), steps) for name in order]
        differences = {name: run(gradient_difference, workload, name) for name in names[1:]}
        scaling = [run(time_steps, case, steps) for case in further]
    merged = [_merged([one for one in timed if one.workload.formulation == name]) for name in names]
    return SpeedReport(ceilings, run.threads, merged, scaling, differences)


def time_steps(workload: Workload, count: int) -> StepTime:
    """Time the steps of a workload in this process."""
    device = torch.device(workload.device)
    steps = Steps(workload)
    seconds = seconds_of(steps.take, device, repeats=count, warm_up=WARM_UP)
    parts: dict[str, list[float]] = {}
    for _ in range(count):
        for name, spent in _parts(steps, device):
            parts.setdefault(name, []).append(1000 * spent)
    peak = peak_memory(device)
    return StepTime(
        workload=workload,
        milliseconds=[1000 * value for value in seconds],
        parts={name: middle(values) for name, values in parts.items()},
        gflop=_operations(steps) / 1e9,
        peak_gib=peak,
    )


def _parts(steps: Steps, device: torch.device) -> Iterator[tuple[str, float]]:
    """Seconds of each part of a step, which is taken."""
    problem, slots = steps.problem, steps.slots
    assert slots.batch is not None
    state, clock = slots.batch.state, _Clock(device)
    if steps.workload.formulation == "compiled":
        evaluation = problem.evaluate(state.y)
        yield COMPILED_PART, clock.lap()
        slots.batch.state = slots.solver.update(state, evaluation)
        yield PARTS[4], clock.lap()
        return
    if steps.workload.formulation == "plain":
        steps.recompute()
        yield PLAIN_PART, clock.lap()
    y = map_latents(lambda tensor: tensor.detach().requires_grad_(), state.y)
    dtype = slots.precision.features
    image = problem.render(y, dtype)
    yield PARTS[0], clock.lap()
    found = problem.objective.reconstruction(image, problem.prepared, dtype)
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
    """Operations of a step as torch counts them; a compiled one has those of what was compiled."""
    from torch.utils.flop_counter import FlopCounterMode

    if steps.workload.formulation == "compiled":
        steps = Steps(steps.workload.with_formulation("lean"))
    with FlopCounterMode(display=False) as counter:
        steps.take()
    return counter.get_total_flops()


def gradient_difference(workload: Workload, other: str = "plain") -> dict[str, float]:
    """Norm of the difference between the gradients of another formulation and of the lean one, relative to the former.

    It is by latent tensor; the lean one has the precision of the workload, the other one full precision.
    """
    found = []
    for name in ("lean", other):
        problem = build_problem(workload.with_formulation(name))
        precision = find_precision(workload.precision, problem.generator) if name == "lean" else FULL
        gradients = problem.evaluate(problem.start(), precision).gradients
        assert gradients is not None
        found.append(flatten(gradients))
    ours, theirs = found
    return {name: float((ours[name] - theirs[name]).norm() / theirs[name].norm()) for name in theirs}


def _merged(parts: Sequence[StepTime]) -> StepTime:
    """Several measurements of one workload as one."""
    times = [value for part in parts for value in part.milliseconds]
    names = list(parts[0].parts)
    by_part = {name: middle([part.parts[name] for part in parts]) for name in names}
    peak = max(part.peak_gib for part in parts)
    return replace(parts[0], milliseconds=times, parts=by_part, peak_gib=peak)

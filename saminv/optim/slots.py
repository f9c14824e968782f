"""The images that are being worked on, step by step; finished ones leave and others enter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Generic

import torch
from torch import Tensor

from .._errors import InputError, Status
from .._types import Latents, map_latents, per_image
from ..solution import Solution
from .graph import Batch, StepGraph
from .precision import FULL, Precision
from .problem import Evaluation, Problem
from .solver import AbstractSolver, SolverState, State

GRAPHS = ("auto", "on", "off")
CHECK_EVERY = 5
"""Steps between looks at numbers where a device has to be waited for."""
RESTING = int(Status.INTERRUPTED)
"""What a solver is told of an image that takes no step this time."""


@dataclass(eq=False)
class Slots(Generic[State]):
    """The images that are being worked on; finished ones leave and others enter.

    A batch is independent images that share forward passes, each with a clock of its own, so it does not matter when
    an image enters or who its neighbours are.

    Attributes:
        solver: Method, with its wrappers.
        max_steps: Steps of the schedule of each image.
        precision: In which numbers the steps are computed.
        graph: Replay the steps as one CUDA graph: "auto" on CUDA, for solvers that can be recorded; "on" wherever the
            solver can; "off".
        keys: What the caller calls the images, in the order of the state's rows.

    Raises:
        InputError: If ``graph`` is none of these.
    """

    solver: AbstractSolver[State]
    max_steps: int
    precision: Precision = FULL
    graph: str = "auto"
    keys: list[Any] = field(default_factory=list)
    batch: Batch[State] | None = None
    _graph: StepGraph | None = field(default=None, repr=False)
    _count: int = 0
    _half: bool = False
    _strict: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool), repr=False)

    def __post_init__(self) -> None:
        check_graph(self.graph)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def state(self) -> State | None:
        """State of the solver; None while there is no image."""
        return None if self.batch is None else self.batch.state

    @property
    def taken(self) -> Tensor:
        """Steps that each image has taken `[B]`."""
        assert self.batch is not None
        return self.batch.taken

    @property
    def unfinished(self) -> bool:
        """Whether an image is running that has taken fewer steps than its schedule has."""
        return self.batch is not None and bool((self.batch.state.running & (self.taken < self.max_steps)).any())

    @property
    def looked(self) -> bool:
        """Whether numbers were looked at after the last step, so that looking at more costs nothing."""
        return self._count % self._look_every == 0

    @property
    def _look_every(self) -> int:
        assert self.batch is not None
        return 1 if on_host(self.batch.taken.device) and self.graph != "on" else CHECK_EVERY

    def enter(
        self,
        problem: Problem,
        keys: Iterable[Any],
        solver: AbstractSolver[State] | None = None,
        y0: Latents | None = None,
    ) -> None:
        """Take in the images of a problem.

        Args:
            problem: With the generator, spaces and objective of those that are here.
            keys: One for each of its images.
            solver: For their first state, where it knows something about them, such as their segments.
            y0: Start; the problem's own where None.
        """
        fresh = (solver or self.solver).init(problem, problem.start() if y0 is None else y0, self.max_steps)
        if self.max_steps == 0:
            fresh.status[:] = int(Status.COMPLETED)
        entering = Batch.fresh(fresh)
        self._strict = torch.cat([self._strict.to(fresh.step.device), torch.zeros_like(entering.overflowed)])
        self.batch = entering if self.batch is None else self.batch.join(entering)
        self.keys += keys
        self._choose()

    def step(self) -> Evaluation:
        """Take a step for all images that are running.

        Returns:
            The evaluation that the step was taken from. A graph overwrites its tensors at the next step.
        """
        assert self.batch is not None
        replayed = self._replayed()
        if replayed is None:
            evaluation = self._advance(self.batch)
        else:
            self.batch, evaluation = replayed(self.batch, self._half)
        self._count += 1
        if self.looked:
            self.solver.attend(self.batch.state, evaluation)
            self._choose()
        return evaluation

    def interrupt(self) -> None:
        """End all images with what there is of them."""
        assert self.state is not None
        self.state.status.masked_fill_(self.state.running, int(Status.INTERRUPTED))

    def leave(self) -> list[tuple[Any, Solution]]:
        """Let the images that have ended go; returns a solution of one row for each."""
        if self.batch is None:
            return []
        running = self.batch.state.running
        done, rest = (torch.nonzero(rows)[:, 0] for rows in (~running, running))
        if not len(done):
            return []
        left = self.batch.select(done)
        solution = finished(self.solver, left.state, left.taken)
        keys = [self.keys[row] for row in done.tolist()]
        self.keys = [self.keys[row] for row in rest.tolist()]
        self._strict = self._strict[rest]
        self.batch = self.batch.select(rest) if len(rest) else None
        return [(key, solution[row]) for row, key in enumerate(keys)]

    def _advance(self, batch: Batch[State]) -> Evaluation:
        """One step, in place or with new tensors; nothing in it waits for a number on a device that is not the CPU."""
        state, precision = batch.state, self.precision if self._half else self.precision.full
        with precision.rounding(batch.taken.device):
            evaluation = state.problem.evaluate(state.y, precision)
        fine, evaluation = finite(evaluation)
        narrow = ~fine & state.running if self._half else None
        if narrow is None:
            state.status.masked_fill_(~fine & state.running, int(Status.NON_FINITE))
        else:
            # These images try again in full precision.
            batch.overflowed |= narrow
            state.status.masked_fill_(narrow, RESTING)
        batch.taken += state.running
        batch.state = self.solver.update(state, evaluation)
        if narrow is not None:
            batch.state.status.masked_fill_(narrow, int(Status.RUNNING))
        return evaluation

    def _choose(self) -> None:
        """Choose the precision of the next steps: half as long as no image needs more."""
        if self.precision.features is None or self.batch is None:
            return
        state = self.batch.state
        late = state.step >= int((1 - self.precision.polish) * state.horizon)
        strict = state.running & (late | self.batch.overflowed)
        newly = strict & ~self._strict
        if bool(newly.any()):
            # Losses of another precision cannot be compared.
            self.solver.rebase(state, state.problem, newly)
            self._strict = self._strict | newly
        self._half = not bool(strict.any())

    def _replayed(self) -> StepGraph | None:
        """The graph of the steps, if they are replayed."""
        assert self.batch is not None
        on = self.graph == "on" or (self.graph == "auto" and self.batch.taken.device.type == "cuda")
        if not (on and self.solver.capturable):
            return None
        if self._graph is None:
            self._graph = StepGraph(self._advance)
        return self._graph


def on_host(device: torch.device) -> bool:
    """Whether looking at a number costs nothing."""
    return device.type == "cpu"


def check_graph(graph: str) -> str:
    """``graph`` itself; raises ``InputError`` unless it says when steps are replayed."""
    if graph not in GRAPHS:
        raise InputError(f"graph must be one of {', '.join(map(repr, GRAPHS))}; got {graph!r}.")
    return graph


def finite(evaluation: Evaluation) -> tuple[Tensor, Evaluation]:
    """Which images have a finite loss and gradient `[B]`, and an evaluation that hides the others' numbers."""
    assert evaluation.gradients is not None
    fine = torch.isfinite(evaluation.loss)
    for value in evaluation.gradients.values():
        for gradient in value.values():
            # What is not finite makes the sum so, and one pass over the gradient is enough.
            fine = fine & torch.isfinite(gradient.sum(dim=tuple(range(1, gradient.dim()))))
    if on_host(fine.device) and bool(fine.all()):
        return fine, evaluation
    gradients = map_latents(lambda g: torch.where(per_image(fine, g), g, torch.zeros_like(g)), evaluation.gradients)
    loss = torch.where(fine, evaluation.loss, torch.full_like(evaluation.loss, torch.inf))
    return fine, replace(evaluation, loss=loss, gradients=gradients)


@torch.no_grad()
def finished(solver: AbstractSolver, state: SolverState, taken: Tensor) -> Solution:
    """The result of all images of a state, rendered once more, with its numbers."""
    problem = state.problem
    latents = map_latents(lambda tensor: tensor.detach().clone(), solver.result(state))
    look = problem._look(latents)
    stats = {f"loss/{name}": value for name, value in look.parts.items()}
    error = (look.image - problem.target).square().mean(dim=(1, 2, 3))
    return Solution(
        latents=latents,
        image=look.image,
        target=problem.target,
        regions=problem.regions,
        status=state.status.clone(),
        stats={"loss": look.loss, "psnr": 10 * torch.log10(4 / error), "steps": taken.clone(), **stats},
        provenance={
            "fingerprint": problem.generator.fingerprint,
            "noise": problem.noise,
            **problem.spaces[0].options.to_dict(),
        },
        generator=problem.generator,
    )

"""The one loop of the library, and what it asks of a solver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from .._errors import InputError, Status
from .._types import Latents, flatten, map_latents, per_image
from ..solution import Solution
from .problem import Evaluation, Problem

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass
class SolverState:
    """What every solver keeps; tensors are updated in place.

    Attributes:
        problem: The problem as it stands now; its regions may change during a solve.
        y: Current latents.
        step: Clock of each image `[B]`, int64.
        status: `[B]`, codes of :class:`saminv.Status`.
        horizon: Steps of the whole run.
    """

    problem: Problem
    y: Latents
    step: Tensor
    status: Tensor
    horizon: int

    @property
    def running(self) -> Tensor:
        """`[B]`, True where an image is still being worked on."""
        return self.status == Status.RUNNING

    @classmethod
    def fresh(cls, problem: Problem, y0: Latents, horizon: int, **more: Any) -> Self:
        """State at step 0."""
        zeros = torch.zeros(len(problem), dtype=torch.int64, device=problem.target.device)
        y = map_latents(lambda tensor: tensor.detach().clone(), y0)
        return cls(problem=problem, y=y, step=zeros, status=zeros.clone(), horizon=horizon, **more)

    def select(self, rows: Tensor) -> Self:
        """The state of the images ``rows`` `[N]`, apart from the others."""
        return replace(self, **{name: _select(value, rows) for name, value in self._per_image()})

    def join(self, other: Self) -> Self:
        """The state of these images and then the other ones, which have the same spaces and the same horizon."""
        assert self.horizon == other.horizon
        theirs = dict(other._per_image())
        return replace(self, **{name: _join(value, theirs[name]) for name, value in self._per_image()})

    def _per_image(self) -> Iterator[tuple[str, Any]]:
        """Fields with one row per image. Those marked ``SHARED`` are the same for all images."""
        for item in fields(self):
            if item.name != "horizon" and not item.metadata.get("shared"):
                yield item.name, getattr(self, item.name)


SHARED = {"shared": True}
"""Metadata of a state's field that has no rows of images."""


def _select(value: Any, rows: Tensor) -> Any:
    if isinstance(value, dict):
        return {key: _select(item, rows) for key, item in value.items()}
    if isinstance(value, Tensor):
        return value[rows]
    return None if value is None else value.select(rows)


def _join(value: Any, other: Any) -> Any:
    if isinstance(value, dict):
        return {key: _join(item, other[key]) for key, item in value.items()}
    if isinstance(value, Tensor):
        return torch.cat(_padded(value, other))
    return None if value is None else value.join(other)


def _padded(value: Tensor, other: Tensor) -> list[Tensor]:
    """Both with as many columns: where images have different numbers of segments, the missing ones are zeros."""
    if value.dim() < 2 or value.shape[1] == other.shape[1]:
        return [value, other]
    width, behind = max(value.shape[1], other.shape[1]), (0, 0) * (value.dim() - 2)
    return [torch.nn.functional.pad(part, (*behind, 0, width - part.shape[1])) for part in (value, other)]


State = TypeVar("State", bound=SolverState)


class AbstractSolver(ABC, Generic[State]):
    """A method of descent. It is configuration; what moves is in its state."""

    @abstractmethod
    def init(self, problem: Problem, y0: Latents, horizon: int) -> State:
        """State before the first step."""

    @abstractmethod
    def update(self, state: State, evaluation: Evaluation) -> State:
        """Take a step for the running images, given the evaluation of the current latents. May change the state.

        Spaces that have no gradients stay as they are.
        """

    def result(self, state: State) -> Latents:
        """The latents to return."""
        return state.y

    def rebase(self, state: State, problem: Problem, changed: Tensor) -> None:
        """Go on with another problem, which differs for the images ``changed`` `[B]`."""
        state.problem = problem

    def hasten(self, state: State, which: Tensor) -> Tensor:
        """Begin the last part of the run for the images ``which`` `[B]`; returns those whose run got shorter by it."""
        return torch.zeros_like(which)


Callback = Callable[[int, SolverState, Evaluation], None]


def keep_finite(state: SolverState, evaluation: Evaluation) -> Evaluation:
    """End the images whose loss or gradient is not finite, and hide their numbers from the solver."""
    assert evaluation.gradients is not None
    fine = torch.isfinite(evaluation.loss)
    for value in evaluation.gradients.values():
        for gradient in value.values():
            # What is not finite makes the sum so, and one pass over the gradient is enough.
            fine &= torch.isfinite(gradient.sum(dim=tuple(range(1, gradient.dim()))))
    if fine.device.type == "cpu" and bool(fine.all()):
        return evaluation
    state.status[~fine & state.running] = int(Status.NON_FINITE)
    gradients = map_latents(lambda g: torch.where(per_image(fine, g), g, torch.zeros_like(g)), evaluation.gradients)
    loss = torch.where(fine, evaluation.loss, torch.full_like(evaluation.loss, torch.inf))
    return Evaluation(loss, evaluation.parts, gradients, evaluation.image)


@dataclass(eq=False)
class Slots(Generic[State]):
    """The images that are being worked on; finished ones leave and others enter.

    A batch is independent images that share forward passes, each with a clock of its own, so it does not matter when
    an image enters or who its neighbours are.

    Attributes:
        solver: Method, with its wrappers.
        max_steps: Steps of the schedule of each image.
        keys: What the caller calls the images, in the order of the state's rows.
    """

    solver: AbstractSolver[State]
    max_steps: int
    keys: list[Any] = field(default_factory=list)
    state: State | None = None
    taken: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.keys)

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
        self.taken = torch.cat([self.taken.to(fresh.step), torch.zeros_like(fresh.step)])
        self.state = fresh if self.state is None else self.state.join(fresh)
        self.keys += keys

    def step(self) -> Evaluation:
        """Take a step for all images that are running."""
        state = self.state
        assert state is not None
        evaluation = keep_finite(state, state.problem.evaluate(state.y))
        self.taken += state.running
        self.state = self.solver.update(state, evaluation)
        return evaluation

    def interrupt(self) -> None:
        """End all images with what there is of them."""
        assert self.state is not None
        self.state.status[self.state.running] = int(Status.INTERRUPTED)

    def leave(self) -> list[tuple[Any, Solution]]:
        """Let the images that have ended go; returns a solution of one row for each."""
        if self.state is None:
            return []
        running = self.state.running
        done, rest = (torch.nonzero(rows)[:, 0] for rows in (~running, running))
        if not len(done):
            return []
        left = self.state.select(done)
        solution = finished(self.solver, left, self.taken[done])
        keys = [self.keys[row] for row in done.tolist()]
        self.keys, self.taken = [self.keys[row] for row in rest.tolist()], self.taken[rest]
        self.state = self.state.select(rest) if len(rest) else None
        return [(key, solution[row]) for row, key in enumerate(keys)]


def solve(
    problem: Problem,
    solver: AbstractSolver,
    y0: Latents | None = None,
    *,
    max_steps: int = 300,
    callback: Callback | None = None,
    progress: bool = False,
    check_every: int = 5,
) -> Solution:
    """Minimise a problem.

    Args:
        problem: B independent inversions.
        solver: Method, with its wrappers.
        y0: Start; the problem's own where None.
        max_steps: Steps of the schedule; 0 returns the start.
        callback: Called with the step, the state and the evaluation after each step.
        progress: Show a bar with loss and PSNR.
        check_every: Steps between looks at the status, each of which waits for the device.

    Returns:
        The solver's result for each image. Ctrl-C ends the solve early, with status "interrupted" and what there is.

    Raises:
        InputError: If ``max_steps`` is not a whole number from 0 up, or ``y0`` does not fit the problem.
    """
    check_steps(max_steps)
    if y0 is not None:
        problem = replace(problem, warm=_checked_start(problem, y0))
    slots: Slots = Slots(solver, max_steps)
    slots.enter(problem, range(len(problem)), y0=y0)
    try:
        with tqdm(total=max_steps, disable=not progress, unit="step", desc="invert") as bar:
            for index in range(max_steps):
                evaluation = slots.step()
                assert slots.state is not None
                if callback is not None:
                    callback(index, slots.state, evaluation)
                bar.update()
                if (index + 1) % check_every == 0:
                    _show(bar, evaluation)
                    if not bool(slots.state.running.any()):
                        break
    except KeyboardInterrupt:
        slots.interrupt()
    assert slots.state is not None
    slots.state.status[slots.state.running] = int(Status.COMPLETED)
    return finished(solver, slots.state, slots.taken)


def check_steps(max_steps: int) -> None:
    """Raise ``InputError`` unless this is a number of steps."""
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 0:
        raise InputError(f"steps must be a whole number from 0 up, got {max_steps!r}.")


def _checked_start(problem: Problem, y0: Latents) -> Latents:
    """``y0`` if it has the tensors of the problem's spaces."""
    own, given = flatten(problem.start()), flatten(y0)
    wrong = [name for name in own if name not in given or given[name].shape != own[name].shape]
    unknown = [name for name in given if name not in own]
    if wrong or unknown:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in own.items())
        raise InputError(f"y0 does not fit at {', '.join(wrong + unknown)}. This problem has: {shapes}.")
    return y0


def _show(bar: tqdm, evaluation: Evaluation) -> None:
    if not bar.disable:
        psnr = 10 * torch.log10(4 / evaluation.parts["l2"].clamp_min(1e-12))
        bar.set_postfix(loss=f"{evaluation.loss.median():.4f}", psnr=f"{psnr.median():.2f} dB", refresh=False)


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
        stats={"loss": look.loss, "psnr": 10 * torch.log10(4 / error), "steps": taken, **stats},
        provenance={
            "fingerprint": problem.generator.fingerprint,
            "noise": problem.noise,
            **problem.spaces[0].options.to_dict(),
        },
        generator=problem.generator,
    )

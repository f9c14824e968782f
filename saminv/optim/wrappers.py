"""Behaviour added to any solver by wrapping it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._errors import InputError, Status
from .._types import Latents, copy_images, map_latents, per_image
from .problem import Evaluation, Problem
from .solver import AbstractSolver, SolverState

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass
class WrappedState(SolverState):
    """State of a wrapper: the inner state beside its own. The common tensors are the same objects."""

    inner: SolverState = field(default=None)  # type: ignore[assignment]

    @classmethod
    def around(cls, inner: SolverState, **more: Any) -> Self:
        """A state that shares everything with ``inner``."""
        return cls(inner.problem, inner.y, inner.step, inner.status, inner.horizon, inner=inner, **more)

    def select(self, rows: Tensor) -> Self:
        return super().select(rows)._shared()

    def join(self, other: Self) -> Self:
        return super().join(other)._shared()

    def _per_image(self) -> Iterator[tuple[str, Any]]:
        common = {item.name for item in fields(SolverState)}
        return (pair for pair in super()._per_image() if pair[0] not in common)

    def _shared(self) -> Self:
        """With the common tensors of the state inside."""
        inner = self.inner
        return replace(self, problem=inner.problem, y=inner.y, step=inner.step, status=inner.status)


@dataclass(frozen=True)
class AbstractWrapper(AbstractSolver[WrappedState]):
    """Passes everything on to the solver inside."""

    solver: AbstractSolver

    def init(self, problem: Problem, y0: Latents, horizon: int) -> WrappedState:
        return WrappedState.around(self.solver.init(problem, y0, horizon))

    @property
    def capturable(self) -> bool:  # type: ignore[override]
        """As the solver inside."""
        return self.solver.capturable

    def update(self, state: WrappedState, evaluation: Evaluation) -> WrappedState:
        state.inner = self.solver.update(state.inner, evaluation)
        return state

    def attend(self, state: WrappedState, evaluation: Evaluation) -> None:
        self.solver.attend(state.inner, evaluation)
        if state.inner.problem is not state.problem:
            # A wrapper further in has changed the regions.
            before, state.problem = state.problem.regions.labels, state.inner.problem
            self.forget(state, (before != state.problem.regions.labels).flatten(1).any(dim=1))

    def result(self, state: WrappedState) -> Latents:
        return self.solver.result(state.inner)

    def rebase(self, state: WrappedState, problem: Problem, changed: Tensor) -> None:
        state.problem = problem
        self.forget(state, changed)
        self.solver.rebase(state.inner, problem, changed)

    def forget(self, state: WrappedState, changed: Tensor) -> None:
        """Drop what losses have told of the images ``changed`` `[B]`, whose problem is another now."""

    def hasten(self, state: WrappedState, which: Tensor) -> Tensor:
        return self.solver.hasten(state.inner, which)


@dataclass
class BestState(WrappedState):
    """Best latents and loss of each image."""

    best: Latents = field(default_factory=dict)
    best_loss: Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass(frozen=True)
class BestSoFar(AbstractWrapper):
    """Keeps, for each image, the iterate of smallest total loss; starts anew when its regions change."""

    def init(self, problem: Problem, y0: Latents, horizon: int) -> BestState:
        inner = self.solver.init(problem, y0, horizon)
        losses = torch.full((len(problem),), torch.inf, device=problem.target.device, dtype=problem.target.dtype)
        best = map_latents(lambda tensor: tensor.clone(), inner.y)
        return BestState.around(inner, best=best, best_loss=losses)

    @torch.no_grad()
    def update(self, state: BestState, evaluation: Evaluation) -> BestState:  # type: ignore[override]
        better = (evaluation.loss < state.best_loss) & state.running
        state.best_loss = torch.where(better, evaluation.loss.to(state.best_loss.dtype), state.best_loss)
        for name in evaluation.gradients or state.best:
            for key, kept in state.best[name].items():
                copy_images(kept, state.y[name][key], better)
        super().update(state, evaluation)
        return state

    @torch.no_grad()
    def result(self, state: BestState) -> Latents:  # type: ignore[override]
        # Nothing has looked at the last iterate yet.
        last = state.problem.loss(state.y)[0]
        better = (last < state.best_loss) & (state.status != Status.NON_FINITE)
        return map_latents(lambda new, kept: torch.where(per_image(better, new), new, kept), state.y, state.best)

    def forget(self, state: BestState, changed: Tensor) -> None:  # type: ignore[override]
        state.best_loss = state.best_loss.masked_fill(changed, torch.inf)


@dataclass(frozen=True)
class StopAt(AbstractWrapper):
    """Ends an image as soon as a part of its loss is as small as asked for.

    Attributes:
        part: Name of the part, such as "perceptual", without its weight.
        value: How small.

    Raises:
        InputError: If the value is no number from 0 up.
    """

    part: str = "perceptual"
    value: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.value, bool) or not isinstance(self.value, Real) or not 0 <= self.value < math.inf:
            raise InputError(f"The value of {self.part!r} to stop at must be a number from 0 up, got {self.value!r}.")

    @torch.no_grad()
    def update(self, state: WrappedState, evaluation: Evaluation) -> WrappedState:
        if self.part not in evaluation.parts:
            raise InputError(f"The loss has no part {self.part!r}. It has: {', '.join(evaluation.parts)}.")
        reached = (evaluation.parts[self.part] <= self.value) & state.running
        # It ends at the latents that were looked at.
        state.status.masked_fill_(reached, int(Status.REACHED))
        return super().update(state, evaluation)


@dataclass
class PlateauState(WrappedState):
    """Lowest loss so far, and how long ago it fell by more than the tolerance."""

    lowest: Tensor = field(default_factory=lambda: torch.empty(0))
    waited: Tensor = field(default_factory=lambda: torch.empty(0))
    flat: Tensor = field(default_factory=lambda: torch.empty(0))
    watched: Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass(frozen=True, eq=False)
class PlateauStop(AbstractWrapper):
    """Sends an image into its ramp-down once its loss has stopped falling.

    Attributes:
        patience: Steps without progress that count as a plateau.
        tolerance: Relative fall of the loss that counts as progress.
        watched: `[B]`, the images that it is for; all where None.
    """

    patience: int = 30
    tolerance: float = 0.01
    watched: Tensor | None = None

    def init(self, problem: Problem, y0: Latents, horizon: int) -> PlateauState:
        inner = self.solver.init(problem, y0, horizon)
        lowest = torch.full((len(problem),), torch.inf, device=problem.target.device, dtype=torch.float64)
        waited = torch.zeros_like(lowest, dtype=torch.int64)
        watched = torch.ones_like(waited).bool() if self.watched is None else self.watched.to(waited.device).clone()
        return PlateauState.around(inner, lowest=lowest, waited=waited, flat=waited.bool(), watched=watched)

    @torch.no_grad()
    def update(self, state: PlateauState, evaluation: Evaluation) -> PlateauState:  # type: ignore[override]
        fell = evaluation.loss < state.lowest * (1 - self.tolerance)
        state.lowest = torch.where(fell, evaluation.loss.double(), state.lowest)
        state.waited = torch.where(fell, 0, state.waited + 1)
        newly = (state.waited >= self.patience) & state.running & ~state.flat & state.watched
        state.flat |= self.solver.hasten(state.inner, newly)
        super().update(state, evaluation)
        state.status.masked_fill_(state.flat & (state.status == Status.COMPLETED), int(Status.PLATEAU))
        return state

    def forget(self, state: PlateauState, changed: Tensor) -> None:  # type: ignore[override]
        state.lowest = state.lowest.masked_fill(changed, torch.inf)
        state.waited = state.waited.masked_fill(changed, 0)

"""One solver for the first part of a run, another one for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._errors import InputError, Status
from .._types import Latents, map_latents, per_image
from .problem import Evaluation, Problem
from .solver import AbstractSolver, SolverState

if TYPE_CHECKING:
    from typing_extensions import Self

RESTING = int(Status.INTERRUPTED)
"""What a solver is told of images that it is not to move."""


@dataclass
class RelayState(SolverState):
    """The states of both solvers; problem, latents, clock and status are the same objects in all three."""

    first: SolverState = field(default=None)  # type: ignore[assignment]
    second: SolverState = field(default=None)  # type: ignore[assignment]

    @classmethod
    def of(cls, first: SolverState, second: SolverState) -> Self:
        """A state that shares everything with ``first``, and makes ``second`` do so."""
        common = {item.name: getattr(first, item.name) for item in fields(SolverState)}
        return cls(**common, first=first, second=replace(second, **common))

    def select(self, rows: Tensor) -> Self:
        found = super().select(rows)
        return self.of(found.first, found.second)

    def join(self, other: Self) -> Self:
        found = super().join(other)
        return self.of(found.first, found.second)

    def _per_image(self) -> Iterator[tuple[str, Any]]:
        return iter([("first", self.first), ("second", self.second)])


@dataclass(frozen=True)
class Relay(AbstractSolver[RelayState]):
    """Descends by one solver, then by another, which starts where the first one has come to.

    Adam finds the valley from afar, L-BFGS goes to its floor.

    Attributes:
        first, second: The solvers.
        share: Part of the run that is the first one's.
    """

    first: AbstractSolver
    second: AbstractSolver
    share: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"share must be between 0 and 1, got {self.share}.")

    @property
    def capturable(self) -> bool:  # type: ignore[override]
        """If both solvers are."""
        return self.first.capturable and self.second.capturable

    def init(self, problem: Problem, y0: Latents, horizon: int) -> RelayState:
        return RelayState.of(self.first.init(problem, y0, horizon), self.second.init(problem, y0, horizon))

    def update(self, state: RelayState, evaluation: Evaluation) -> RelayState:
        early = state.step < self.handover(state.horizon)
        state.first, first_status = self._go(self.first, state.first, evaluation, early)
        state.second, second_status = self._go(self.second, state.second, evaluation, ~early)
        state.status.copy_(torch.where(early, first_status, second_status))
        return state

    def attend(self, state: RelayState, evaluation: Evaluation) -> None:
        self.first.attend(state.first, evaluation)
        self.second.attend(state.second, evaluation)

    def handover(self, horizon: int) -> int:
        """Step at which the second solver takes over."""
        return round(self.share * horizon)

    def result(self, state: RelayState) -> Latents:
        early = state.step <= self.handover(state.horizon)
        results = self.first.result(state.first), self.second.result(state.second)
        return map_latents(lambda one, other: torch.where(per_image(early, one), one, other), *results)

    def rebase(self, state: RelayState, problem: Problem, changed: Tensor) -> None:
        super().rebase(state, problem, changed)
        self.first.rebase(state.first, problem, changed)
        self.second.rebase(state.second, problem, changed)

    def hasten(self, state: RelayState, which: Tensor) -> Tensor:
        handover = self.handover(state.horizon)
        early = which & (state.step < handover)
        later = self.second.hasten(state.second, which & ~early)
        state.step[early] = handover
        return early | later

    def _go(
        self, solver: AbstractSolver, state: SolverState, evaluation: Evaluation, which: Tensor
    ) -> tuple[SolverState, Tensor]:
        """Let a solver move the images ``which`` only; returns its state and what it says of all images."""
        shared = state.status
        state.status = torch.where(which, shared, RESTING)
        state = solver.update(state, evaluation)
        said, state.status = state.status, shared
        return state, said

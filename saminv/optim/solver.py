"""What the loop asks of a solver: configuration, a state of its own, one update at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from .._errors import Status
from .._types import Latents, map_latents
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
    """A method of descent. It is configuration; what moves is in its state.

    Attributes:
        capturable: Whether all that :meth:`update` does depends on tensors alone: it neither waits for a number nor
            counts by itself, so that a step can be recorded once and replayed on a GPU.
    """

    capturable: ClassVar[bool] = False

    @abstractmethod
    def init(self, problem: Problem, y0: Latents, horizon: int) -> State:
        """State before the first step."""

    @abstractmethod
    def update(self, state: State, evaluation: Evaluation) -> State:
        """Take a step for the running images, given the evaluation of the current latents. May change the state.

        Spaces that have no gradients stay as they are.
        """

    def attend(self, state: State, evaluation: Evaluation) -> None:
        """Do what needs to know numbers, such as looking at a plateau; may change the state and its problem.

        It is called after each update on the CPU, and after every few elsewhere, where each time the device has to be
        waited for.

        Args:
            state: After the last update.
            evaluation: That the last update was given.
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

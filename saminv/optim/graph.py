"""A step as one CUDA graph: what the host would launch one by one is recorded once and replayed.

A graph reads and writes fixed places in memory, which are made when it is recorded. A batch is moved there before each
replay, as far as it is not there already; so one graph serves all batches whose tensors have the same shapes and that
agree in everything else, such as the generator, the spaces and those of them that are idle. For another one, another
graph is recorded.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic

import torch
from torch import Tensor

from ..metrics._base import Prepared
from ..regions import Regions
from .objective import Targets
from .problem import Evaluation, Problem
from .solver import SolverState, State

WARM_UP = 3
"""Steps that are launched one by one before one is recorded: in them kernels are compiled and algorithms chosen."""
Replay = Callable[[], Evaluation]

_log = logging.getLogger("saminv")


@dataclass(eq=False)
class Recording:
    """A step that can be replayed.

    Attributes:
        key: What a batch must have in common with the one that was recorded.
        places: The tensors that the step reads and writes.
        replay: Takes the step.
    """

    key: Hashable
    places: list[Tensor]
    replay: Replay


class StepGraph:
    """Takes the steps of batches: one by one at first, as a graph from then on.

    Where a step cannot be recorded, it says so once in the log and goes on without a graph.

    Args:
        step: Takes a step of a batch, in place or by putting other tensors into it. It may not depend on anything but
            the tensors of the batch.
        capture: Records what a function launches, and returns what replays it; made for the device where None.
    """

    def __init__(
        self, step: Callable[[Batch], Evaluation], capture: Callable[[Callable[[], Evaluation]], Replay] | None = None
    ) -> None:
        self.step, self.capture = step, capture
        self.failed = False
        self._recordings: dict[Hashable, Recording] = {}
        self._warm: dict[Hashable, tuple[Hashable, int]] = {}
        self._settled: Problem | None = None

    def __call__(self, batch: Batch, kind: Hashable = None) -> tuple[Batch, Evaluation]:
        """Take a step.

        Args:
            batch: The images.
            kind: Of the step, such as its precision; each kind has a graph of its own.

        Returns:
            The batch after the step, and the evaluation that the step was taken from; the next step overwrites both.
        """
        if self.failed:
            return batch, self.step(batch)
        self._settle(batch.state.problem)
        key, tensors = scan(batch)
        recording = self._recordings.get(kind)
        if recording is None or recording.key != key:
            recording = self._record(batch, kind, key) if self._is_warm(kind, key) else None
        if recording is None:
            return batch, self.step(batch)
        if any(tensor is not place for tensor, place in zip(tensors, recording.places)):
            for tensor, place in zip(tensors, recording.places):
                place.copy_(tensor)
            batch = transplant(batch, {id(old): new for old, new in zip(tensors, recording.places)})
        return batch, recording.replay()

    def _settle(self, problem: Problem) -> None:
        """Let a problem compute what it keeps, so that a recorded step finds it."""
        if problem is not self._settled:
            problem.taps(problem.start())
            _ = problem.idle, problem._resting, problem._anchors
            self._settled = problem

    def _is_warm(self, kind: Hashable, key: Hashable) -> bool:
        """Whether enough steps have been taken of such a batch; counts this one."""
        last, count = self._warm.get(kind, (None, 0))
        count = count + 1 if last == key else 1
        self._warm[kind] = key, count
        return count > WARM_UP

    def _record(self, batch: Batch, kind: Hashable, key: Hashable) -> Recording | None:
        """A recording of a step of such a batch; None where there can be none."""
        self._recordings.pop(kind, None)
        _, tensors = scan(batch)
        places = [tensor.detach().clone() for tensor in tensors]
        resident = transplant(batch, {id(old): new for old, new in zip(tensors, places)})

        def take() -> Evaluation:
            work = transplant(resident, {})
            evaluation = self.step(work)
            found, after = scan(work)
            if found != key:
                raise RuntimeError("the step gives its state another shape")
            return_to(places, after)
            return evaluation

        try:
            capture = self.capture or (capture_cuda if places[0].is_cuda else _again)
            recording = Recording(key, places, capture(take))
        except torch.OutOfMemoryError:
            # Whoever asked for so large a batch can ask for a smaller one.
            raise
        except RuntimeError as error:
            self.failed = True
            _log.warning("Going on without a CUDA graph: %s", str(error).partition("\n")[0])
            return None
        self._recordings[kind] = recording
        return recording


def capture_cuda(function: Callable[[], Evaluation]) -> Replay:
    """Record what a function launches on the current CUDA device."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        evaluation = function()

    def replay() -> Evaluation:
        graph.replay()
        return evaluation

    return replay


def _again(function: Callable[[], Evaluation]) -> Replay:
    """Where there are no graphs the function is called each time, in the same places."""
    return function


@dataclass(eq=False)
class Batch(Generic[State]):
    """What changes with each step, one row per image.

    Attributes:
        state: Of the solver.
        taken: Steps so far `[B]`, int64.
        overflowed: `[B]`, images for which half precision was too narrow at some step.
    """

    state: State
    taken: Tensor
    overflowed: Tensor

    @classmethod
    def fresh(cls, state: State) -> Batch[State]:
        """Before the first step."""
        zeros = torch.zeros_like(state.step)
        return cls(state, zeros, zeros.bool())

    def select(self, rows: Tensor) -> Batch[State]:
        """The images ``rows`` `[N]`."""
        return Batch(self.state.select(rows), self.taken[rows], self.overflowed[rows])

    def join(self, other: Batch[State]) -> Batch[State]:
        """These images and then the other ones."""
        flags = torch.cat([self.overflowed, other.overflowed])
        return Batch(self.state.join(other.state), torch.cat([self.taken, other.taken]), flags)


_PARTS = (Batch, SolverState, Problem, Regions, Targets, Prepared)
"""Objects whose attributes belong to a batch; all others are the same for each batch of a graph."""


@dataclass(frozen=True)
class _Same:
    """Equal to itself alone; it keeps its object alive, so that no other one can be taken for it."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def scan(batch: Batch) -> tuple[Hashable, list[Tensor]]:
    """Everything about a batch but the values of its tensors, and its tensors, each once."""
    marks: list[Hashable] = []
    tensors: list[Tensor] = []
    seen: dict[int, int] = {}

    def visit(value: Any) -> None:
        if isinstance(value, Tensor):
            place = seen.setdefault(id(value), len(tensors))
            marks.append((place, value.shape, value.dtype, value.device))
            if place == len(tensors):
                tensors.append(value)
        elif isinstance(value, dict):
            marks.append(tuple(value))
            for item in value.values():
                visit(item)
        elif isinstance(value, (tuple, list)):
            marks.append(len(value))
            for item in value:
                visit(item)
        elif isinstance(value, _PARTS):
            marks.append((type(value), *vars(value)))
            for item in vars(value).values():
                visit(item)
        else:
            plain = value is None or isinstance(value, (bool, int, float, str, frozenset, torch.dtype))
            marks.append(value if plain else _Same(value))

    visit(batch)
    return tuple(marks), tensors


def transplant(batch: Batch, moved: dict[int, Tensor]) -> Batch:
    """A copy of a batch with other tensors, by the identity of the old ones; tensors that are not named stay."""
    made: dict[int, Any] = {}

    def build(value: Any) -> Any:
        if isinstance(value, Tensor):
            return moved.get(id(value), value)
        if id(value) in made:
            return made[id(value)]
        if isinstance(value, dict):
            made[id(value)] = {key: build(item) for key, item in value.items()}
        elif isinstance(value, (tuple, list)):
            made[id(value)] = type(value)([build(item) for item in value])
        elif isinstance(value, _PARTS):
            other = made[id(value)] = copy.copy(value)
            for name, item in vars(value).items():
                object.__setattr__(other, name, build(item))
        else:
            return value
        return made[id(value)]

    found: Batch = build(batch)
    return found


def return_to(places: list[Tensor], tensors: list[Tensor]) -> None:
    """Copy what a step has put elsewhere back to its places."""
    memory = {place.untyped_storage().data_ptr() for place in places}
    moved = [(place, tensor) for place, tensor in zip(places, tensors) if tensor is not place]
    # What lies in another place has to be saved before that is overwritten.
    saved = [tensor.clone() if tensor.untyped_storage().data_ptr() in memory else tensor for _, tensor in moved]
    for (place, _), tensor in zip(moved, saved):
        place.copy_(tensor)

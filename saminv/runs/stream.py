"""Pictures pass through the slots of one batch: each enters where there is room and leaves when it has ended."""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from .. import images
from .._errors import ImageError
from .._recipe import FAR_FROM_DOMAIN, Job, Recipe, far_sentence
from .._search import search_job
from ..optim.slots import Slots
from ..solution import Solution
from .sources import Item

TOO_MUCH = "memory ran out although no other picture was under way; use a smaller generator"


@dataclass
class Outcome:
    """How it went with one picture.

    Attributes:
        item: The picture.
        sha256: Of the file, empty if it could not be read.
        solution: Of one image; None where there is none.
        reason: Why there is none.
        warnings: What was noticed on the way, as sentences.
        seconds: From its entry to its end, shared with the pictures beside it.
    """

    item: Item
    sha256: str = ""
    solution: Solution | None = None
    reason: str | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(eq=False)
class _Entry:
    """A picture in a slot."""

    outcome: Outcome
    job: Job
    begun: float


def stream(
    recipe: Recipe, items: Iterator[Item], batch: int, *, on_step: Callable[[int, int], None] | None = None
) -> Iterator[Outcome]:
    """Invert pictures, ``batch`` at a time, and yield each as soon as it has ended.

    A picture that cannot be read is passed over, with the reason. Where memory runs out, those that are under way begin
    anew in half as many slots.

    Args:
        recipe: How to invert.
        items: The pictures; the next one is asked for when there is room.
        batch: Number of slots.
        on_step: Called after each step with the number of pictures under way and of slots.
    """
    if recipe.target is not None or recipe.before:
        return _together(recipe, items, batch)
    return _Stream(recipe, items, batch, on_step).outcomes()


class _Stream:
    def __init__(self, recipe: Recipe, items: Iterator[Item], batch: int, on_step: Any) -> None:
        self.recipe, self.items, self.room, self.on_step = recipe, items, batch, on_step
        self.again: deque[Item] = deque()
        self.slots: Slots | None = None

    def outcomes(self) -> Iterator[Outcome]:
        with self.recipe.seeded():
            while True:
                # Outside the handler: what went wrong holds on to the memory of the failed step.
                exhausted = False
                try:
                    yield from self._fill()
                    if self.slots is None:
                        return
                    yield from self._advance(self.slots)
                except Exception as error:
                    if not out_of_memory(error):
                        raise
                    exhausted = True
                if exhausted:
                    yield from self._shrink()

    def _fill(self) -> Iterator[Outcome]:
        """Let pictures enter while there is room."""
        while (0 if self.slots is None else len(self.slots)) < self.room:
            outcome, picture = _next(self.again, self.items)
            if outcome is None:
                return
            if picture is None:
                yield outcome
            else:
                self._admit(outcome, picture)

    def _admit(self, outcome: Outcome, picture: images.Picture) -> None:
        # Should memory run out, the picture must not be lost.
        self.again.appendleft(outcome.item)
        begun = time.perf_counter()
        job = self.recipe.prepare([picture])
        _note_distance(outcome, job)
        slots = self.recipe.slots(job.solver, self.recipe.steps) if self.slots is None else self.slots
        slots.enter(job.problem, [_Entry(outcome, job, begun)], job.solver)
        self.slots = slots
        self.again.popleft()

    def _advance(self, slots: Slots) -> Iterator[Outcome]:
        """Take a step, and let those that have ended go."""
        if self.recipe.steps:
            slots.step()
        if self.on_step is not None:
            self.on_step(len(slots), self.room)
        for entry, solution in slots.leave() if slots.looked else []:
            entry.outcome.solution = entry.job.finish(solution)
            entry.outcome.seconds = time.perf_counter() - entry.begun
            yield entry.outcome
        if not len(slots):
            self.slots = None

    def _shrink(self) -> Iterator[Outcome]:
        """Begin anew with half as many slots; a picture that is too much by itself is given up."""
        under_way = [] if self.slots is None else [entry.outcome.item for entry in self.slots.keys]
        self.slots = None
        self.again.extendleft(item for item in reversed(under_way) if item not in self.again)
        if len(under_way) > 1 or self.room > 1:
            self.room = max(1, min(self.room, max(len(under_way), 1)) // 2)
            _tell_of_memory(self.room)
            return
        item = self.again.popleft()
        yield Outcome(item, reason=TOO_MUCH)


def _together(recipe: Recipe, items: Iterator[Item], batch: int) -> Iterator[Outcome]:
    """Outcomes where pictures have a target or go through stages; those of a batch end together."""
    again: deque[Item] = deque()
    while True:
        outcomes: list[Outcome] = []
        pictures: list[images.Picture] = []
        while len(pictures) < batch:
            outcome, picture = _next(again, items)
            if outcome is None:
                break
            if picture is None:
                yield outcome
            else:
                outcomes.append(outcome)
                pictures.append(picture)
        if not pictures:
            return
        begun, solution = time.perf_counter(), None
        try:
            solution = _invert(recipe, outcomes, pictures)
        except Exception as error:
            if not out_of_memory(error):
                raise
        if solution is not None:
            for row, outcome in enumerate(outcomes):
                outcome.solution, outcome.seconds = solution[row], time.perf_counter() - begun
                yield outcome
        elif batch == 1:
            outcomes[0].reason = TOO_MUCH
            yield outcomes[0]
        else:
            batch = max(1, len(outcomes) // 2)
            again.extendleft(reversed([outcome.item for outcome in outcomes]))
            _tell_of_memory(batch)


def _invert(recipe: Recipe, outcomes: list[Outcome], pictures: list[images.Picture]) -> Solution:
    with recipe.seeded(), warnings.catch_warnings():
        # What misses its target is said of the picture itself.
        warnings.simplefilter("ignore")
        job = recipe.stages[0].prepare(pictures)
        solution = recipe.follow(pictures, job) if recipe.target is None else search_job(recipe, job)
    for row, (outcome, picture) in enumerate(zip(outcomes, pictures)):
        _note_distance(outcome, job, row)
        if recipe.target is not None and not bool(solution.stats["target_met"][row]):
            outcome.warnings.append(f"No allocation of {picture.name} reaches {recipe.target.text}.")
    return solution


def _note_distance(outcome: Outcome, job: Job, row: int = 0) -> None:
    """Note it of a picture that is far from the domain."""
    distance = job.found.get("domain_distance")
    if distance is not None and float(distance[row]) > FAR_FROM_DOMAIN:
        outcome.warnings.append(far_sentence(job.names[row], float(distance[row])))


def _tell_of_memory(room: int) -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    warnings.warn(f"Memory ran out; going on with {room} at a time.", UserWarning, stacklevel=2)


def _next(again: deque[Item], items: Iterator[Item]) -> tuple[Outcome | None, images.Picture | None]:
    """The next picture, those to do again first; without one, with the reason noted, where it cannot be read."""
    item = again.popleft() if again else next(items, None)
    if item is None:
        return None, None
    outcome = Outcome(item)
    try:
        return outcome, _load(outcome)
    except (ImageError, OSError, MemoryError) as error:
        outcome.reason = str(error) or "memory ran out while the picture was read"
        return outcome, None


def _load(outcome: Outcome) -> images.Picture:
    """Read a picture, and note its hash and what was noticed."""
    path = outcome.item.path
    try:
        outcome.sha256 = file_hash(path)
    except OSError:
        # The reader says more clearly what is wrong.
        outcome.sha256 = ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        picture = images.load(path)
    outcome.warnings += [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    return replace(picture, name=outcome.item.name)


def file_hash(path: Any) -> str:
    """SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: Any) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, on the GPU or on the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)


def numbers(solution: Solution) -> dict[str, float | None]:
    """All numbers of a solution of one image; None for what is not finite."""
    found = {name: float(value[0]) for name, value in solution.stats.items()}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}

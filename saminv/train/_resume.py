"""What makes a training the same however often it was interrupted: seeds by step, and a note of what is trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

from .._errors import CheckpointError
from .._files import atomic_write

RUN = "run.json"
MOST_NAMED = 4
"""So many changed settings are told."""

Batch = TypeVar("Batch")


def mixed(seed: int, purpose: str, number: int) -> int:
    """A seed that differs in all its bits from those of other purposes and numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose} {number}".encode()).digest()[:7], "big")


def claim(folder: Path, run: Mapping[str, Any]) -> None:
    """Note in a folder what is trained on what, as parts of plain values.

    Settings that older notes lack may be new; a part that they lack was None.

    Raises:
        CheckpointError: If it was something else before; the message tells what has changed.
    """
    run, path = json.loads(json.dumps(run)), folder / RUN
    if not path.exists():
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(run, indent=1, sort_keys=True), encoding="utf-8")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        other = {part: list(_changes(before.get(part), run[part], "")) for part in run}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); remove the folder to start anew.") from error
    changed = [part for part in other if other[part]]
    if changed:
        told = [change for part in changed for change in other[part]]
        more = f"; and {len(told) - MOST_NAMED} more" if len(told) > MOST_NAMED else ""
        raise CheckpointError(
            f"{folder} holds a training with another {' and '.join(changed)}, see {path.name} "
            f"({'; '.join(told[:MOST_NAMED])}{more}). Use the same, choose another folder, or remove this one to start "
            "anew."
        )


def _changes(before: Any, now: Any, name: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in now:
            if key in before:
                yield from _changes(before[key], now[key], f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name or 'it'} was {_brief(before)}, now {_brief(now)}"


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:36]}..."


class Ahead(Generic[Batch]):
    """Batches by step; the next one is prepared in a thread while the present one is used, if so asked.

    Args:
        draw: Makes the batch of a step, from the step alone.
        ahead: Prepare the next one.
    """

    def __init__(self, draw: Callable[[int], Batch], ahead: bool) -> None:
        self.draw = draw
        self._pool = ThreadPoolExecutor(1) if ahead else None
        self._next: tuple[int, Future[Batch]] | None = None

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        waiting, self._next = self._next, None
        batch = waiting[1].result() if waiting and waiting[0] == step else self.draw(step)
        if self._pool is not None:
            self._next = (step + 1, self._pool.submit(self.draw, step + 1))
        return batch

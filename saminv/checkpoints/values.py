"""What a file of torch or numpy holds, whatever it is: the safe counterpart of ``torch.load``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._errors import CheckpointError
from ._arrays import StoredArray
from ._contents import read_contents
from ._limits import MAX_DEPTH, Budget
from ._pickle import LongText, Record
from ._told import told
from ._trees import NAMESPACE


def read_values(path: str | Path) -> Any:
    """Read a file of plain containers, plain values and arrays; nothing in it is executed.

    Returns:
        Its containers with tensors for its arrays, which are views of the file. Namespaces become dictionaries. Objects
        of classes that are not there become None.

    Raises:
        CheckpointError: If it is damaged, hostile, or mentions a name that checkpoints do not need.
    """
    with told(path, "is damaged, or holds more than plain arrays"):
        contents = read_contents(Path(path))
        return _Walk(contents.budget).plain(contents.root, 0)


class _Walk:
    """A copy of a tree in which every container is copied once, so that what a file shares stays shared."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.known: dict[int, Any] = {}

    def plain(self, value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise CheckpointError(f"its containers nest deeper than {MAX_DEPTH} levels")
        if isinstance(value, (str, int, float, bool, bytes, type(None))):
            return value
        if isinstance(value, LongText):
            return str(value)
        if id(value) not in self.known:
            self.known[id(value)] = None
            self.known[id(value)] = self._copied(value, depth + 1)
        return self.known[id(value)]

    def _copied(self, value: Any, depth: int) -> Any:
        if isinstance(value, StoredArray):
            if value.storage is None:
                return None
            self.budget.array(value.nbytes)
            return value.tensor()
        if isinstance(value, Record):
            return self._copied(value.state, depth) if value.kind == NAMESPACE else None
        if isinstance(value, Mapping):
            self.budget.step(len(value))
            return {key: self.plain(item, depth) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            self.budget.step(len(value))
            return type(value)(self.plain(item, depth) for item in value)
        return value if isinstance(value, (set, frozenset)) else None

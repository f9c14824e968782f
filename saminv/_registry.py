"""One class for every kind of plug-in: spaces, generators, segmenters, metrics, encoders, solvers."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from ._errors import InputError

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to factories. An entry may be an object or a ``"module:attribute"`` that is imported on first use."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Any] = {}

    def add(self, name: str, entry: T | str) -> None:
        """Register ``entry`` under ``name``.

        Raises:
            InputError: If the name is taken.
        """
        if name in self._entries:
            raise InputError(f"{self.kind} {name!r} is registered already; choose another name.")
        self._entries[name] = entry

    def register(self, name: str) -> Callable[[Any], Any]:
        """Decorator form of :meth:`add`."""

        def decorate(entry: Any) -> Any:
            self.add(name, entry)
            return entry

        return decorate

    def get(self, name: str) -> T:
        """Return the entry called ``name``.

        Raises:
            InputError: If there is none; the message lists the known names.
        """
        if name not in self._entries:
            close = difflib.get_close_matches(str(name), self._entries, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise InputError(
                f"Unknown {self.kind} {name!r}. Known: {', '.join(sorted(self._entries)) or 'none'}.{hint}"
            )
        entry = self._entries[name]
        if isinstance(entry, str):
            module, attribute = entry.split(":")
            entry = self._entries[name] = getattr(importlib.import_module(module), attribute)
        return entry

    def name_of(self, entry: T) -> str:
        """The name under which a class or function is registered; empty if it is not."""
        path = f"{getattr(entry, '__module__', '')}:{getattr(entry, '__qualname__', '')}"
        return next((name for name, known in self._entries.items() if known is entry or known == path), "")

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

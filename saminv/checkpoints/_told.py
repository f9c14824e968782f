"""Errors of reading a file, all of which name it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .._errors import CheckpointError
from ._trees import printable


@contextmanager
def told(path: str | Path, what: str = "cannot be read", supported: str = "") -> Iterator[None]:
    """Let every error name the file, say ``what`` it is, what was found, and what is supported."""
    try:
        yield
    except Exception as error:
        if isinstance(error, CheckpointError):
            found = str(error).rstrip(".")
        else:
            # What a damaged file can make of code that expects a whole one is not foreseen one by one.
            found = f"it is damaged ({type(error).__name__}: {str(error)[:200]})"
        more = f" {supported}." if supported else ""
        raise CheckpointError(f"{path} {what}: {printable(found)}.{more}") from error

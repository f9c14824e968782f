"""One run per folder: a lock that the system lets go of when its process ends, however it ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from .._errors import OutputError, RunError
from .._files import take_lock


class Lock:
    """Holds a lock on a file until released.

    Raises:
        RunError: If another process holds it.
        OutputError: If the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        try:
            # Opened without truncation: the file tells who holds the lock.
            self._file: IO[str] | None = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise OutputError(f"Cannot write {path}: {error.strerror}.") from error
        try:
            take_lock(self._file)
        except OSError as error:
            self._file.seek(0)
            holder = self._file.read().strip()
            self._file.close()
            raise RunError(
                f"Another run is writing into {path.parent}{f' (process {holder})' if holder else ''}. Wait for it, or "
                "choose another folder."
            ) from error
        self._file.seek(0)
        self._file.truncate()
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Let the lock go; more than once does no harm."""
        if self._file is not None:
            self._file.close()
            self._file = None

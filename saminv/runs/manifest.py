"""What a run has done, in a file that survives being killed at any moment.

``manifest.jsonl`` has a header (format, settings, fingerprint of the generator) and then one line for each picture that
ended. Lines are only ever appended, each after its results have reached the disk; if a picture has several, the last
one counts. A line that a kill cut off is dropped when the run goes on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from .._errors import OutputError, RunError
from .._files import atomic_write, ensure_folder, reason, remove_litter
from .._lock import Lock
from .._version import __version__

FILE = "manifest.jsonl"
FORMAT = "saminv.run.1"
Record = dict[str, Any]


@dataclass
class Manifest:
    """The record of a run that is open for writing; nobody else can open it meanwhile.

    Attributes:
        folder: Of the run.
        settings: That all results share.
        records: The last line of each picture by its name.
    """

    folder: Path
    settings: Mapping[str, Any]
    records: dict[str, Record]
    _lock: Lock
    _size: int = field(default=0, repr=False)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], settings: Mapping[str, Any]) -> Manifest:
        """Begin a run in a folder, or go on with the one that is there.

        Raises:
            OutputError: If the folder cannot be written.
            RunError: If another process has it open, it holds a run with other settings or of another version, or its
                manifest is damaged.
        """
        place = ensure_folder(folder)
        lock = Lock(place / ".lock")
        try:
            header = {"format": FORMAT, "saminv": __version__, "settings": _canonical(settings), "time": now()}
            path = place / FILE
            if not path.exists():
                with atomic_write(path) as temporary:
                    temporary.write_text(json.dumps(header) + "\n", encoding="utf-8")
            found, records, size = _read(path)
            _compare(path, found, header)
            if size < path.stat().st_size:
                os.truncate(path, size)
            remove_litter(place)
            return cls(place, found["settings"], records, lock, size)
        except BaseException:
            lock.release()
            raise

    def append(self, record: Record) -> None:
        """Write down that a picture has ended; returns once the line is on the disk.

        Raises:
            OutputError: If it cannot be written; the file is as it was before.
        """
        line = (json.dumps({**record, "time": now()}, allow_nan=False) + "\n").encode()
        path = self.folder / FILE
        try:
            with open(path, "r+b") as file:
                file.seek(self._size)
                try:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(self._size)
                    raise
        except OSError as error:
            raise OutputError(f"Cannot write {path}: {reason(error)}.") from error
        self._size += len(line)
        self.records[record["name"]] = json.loads(line)

    def close(self) -> None:
        """Let others open it."""
        self._lock.release()

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if error is not None and not self.records:
            # Nothing has come of these settings, so others may be tried in the same folder.
            (self.folder / FILE).unlink(missing_ok=True)
        self.close()


def read_manifest(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Record]]:
    """The header of a run and the last record of each picture by name, also while the run goes on.

    Raises:
        RunError: If the folder holds no run, one of another version, or a damaged one.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise RunError(
            f"There is no run in {folder}: it has no {FILE}. `saminv run IMAGES... --out {folder}` makes one."
        )
    header, records, _ = _read(path)
    _check_format(path, header)
    return header, records


def now() -> str:
    """The time of day as written down."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Record], int]:
    """Header, records by name, and the length of the whole lines."""
    data = path.read_bytes()
    lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)
    parsed, size = [], 0
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict) or (number > 1 and not isinstance(entry.get("name"), str)):
                raise ValueError("no record of a picture")
        except ValueError as error:
            if number == len(lines) > 1:
                break
            raise RunError(
                f"{path} is damaged at line {number} ({error}). Restore it from a copy, or begin a new run in another "
                "folder."
            ) from error
        parsed.append(entry)
        size += len(line)
    if not parsed:
        raise RunError(f"{path} is empty. Delete it to begin the run anew.")
    return parsed[0], {entry["name"]: entry for entry in parsed[1:]}, size


def _check_format(path: Path, header: Mapping[str, Any]) -> None:
    if header.get("format") != FORMAT:
        raise RunError(
            f"{path} has the format {header.get('format')!r}; this version of saminv reads and writes {FORMAT!r}. Use "
            "the version that made it, or begin a new run in another folder."
        )


def _compare(path: Path, found: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise ``RunError`` unless a run with the header ``asked`` may go on where ``found`` stands."""
    _check_format(path, found)
    old, new = found.get("settings", {}), asked["settings"]
    different = [
        f"{key} (there {json.dumps(old.get(key))}, now {json.dumps(new.get(key))})"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    if found.get("saminv") != asked["saminv"]:
        different.insert(0, f"the version of saminv (there {found.get('saminv')}, now {asked['saminv']})")
    if different:
        raise RunError(
            f"{path.parent} holds a run with other settings: {'; '.join(different)}. Results of both would be mixed: "
            "take the same settings to go on, or another folder to begin a new run."
        )


def _canonical(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they come back from a file."""
    return json.loads(json.dumps(settings))

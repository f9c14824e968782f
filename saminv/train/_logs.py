"""Logs: a file with one row per entry, CSV or JSON lines by its suffix; every row has a step and seconds."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path

from .._errors import OutputError
from .._files import atomic_write, reason

Row = dict[str, float]


def append_row(path: Path, row: Mapping[str, float]) -> None:
    """Add a row to a log; numbers that are not finite are left out of JSON.

    Raises:
        OutputError: If it cannot be written.
    """
    try:
        fresh = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            if path.suffix == ".jsonl":
                known = {name: value for name, value in row.items() if math.isfinite(value)}
                file.write(json.dumps({name: _short(value) for name, value in known.items()}) + "\n")
                return
            writer = csv.writer(file)
            if fresh:
                writer.writerow(row)
            writer.writerow([str(value) if isinstance(value, int) else f"{value:.6g}" for value in row.values()])
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {reason(error)}.") from error


def read_rows(path: Path) -> list[Row]:
    """The whole rows of a log, none where there is no file; a row that a killed process left unfinished is passed over.

    Rows of JSON lines need not have the same names.
    """
    if not path.exists():
        return []
    if path.suffix == ".jsonl":
        found = (_parsed(line) for line in path.read_text(encoding="utf-8").splitlines())
        return [row for row in found if row is not None]
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = list(csv.reader(file)) or [[]]
    whole = [row for row in rows if len(row) == len(head) and row[0].isdigit()]
    return [{name: float(cell) for name, cell in zip(head, row)} for row in whole]


def keep_rows(path: Path, step: int) -> None:
    """Drop the rows of a log, if there is one, that belong to steps after ``step`` or are not whole."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    head, rows = ([], lines) if path.suffix == ".jsonl" else (lines[:1], lines[1:])
    kept = [line for line in rows if _belongs(path, line, head, step)]
    if not kept:
        path.unlink()
    elif len(kept) < len(rows):
        with atomic_write(path) as temporary:
            temporary.write_text("\n".join([*head, *kept]) + "\n", encoding="utf-8")


def _belongs(path: Path, line: str, head: list[str], step: int) -> bool:
    if path.suffix == ".jsonl":
        row = _parsed(line)
        return row is not None and row["step"] <= step
    cells = line.split(",")
    return len(cells) == len(head[0].split(",")) and cells[0].isdigit() and int(cells[0]) <= step


def _parsed(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "step" in row else None


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.6g}")

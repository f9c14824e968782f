"""Reports of ``saminv bench quality`` as their JSON files say them, and whether two go together."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._errors import InputError

FAILED = "failed"
"""The figure that counts pictures which could not be done."""
Key = tuple[str, int | None]
"""Method, in lower case, and steps."""


@dataclass(frozen=True)
class WrittenReport:
    """A report as its JSON says it.

    Attributes:
        where: The file.
        content: All of it.
        rows: By method, in lower case, and steps.
        sources: Names of the pictures, in the order of their values, with what each is; empty if it does not say.
    """

    where: str
    content: Mapping[str, Any]
    rows: Mapping[Key, Mapping[str, Any]]
    sources: dict[str, str]

    @classmethod
    def read(cls, source: str | Path | Mapping[str, Any]) -> WrittenReport:
        """Read and check a report.

        Raises:
            InputError: If it is none.
        """
        if isinstance(source, Mapping):
            return cls._of(source, "the report")
        try:
            content = json.loads(Path(source).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{source} is no report of saminv bench quality: {error}.") from error
        return cls._of(content, str(source))

    @classmethod
    def _of(cls, content: Any, where: str) -> WrittenReport:
        try:
            rows = {(str(row["method"]).lower(), _steps(row)): dict(row) for row in content["rows"]}
            sources = {str(name): str(what) for name, what in content.get("sources", {}).items()}
            for row in rows.values():
                for name, values in row.get("each", {}).items():
                    if len(values) != len(sources):
                        raise ValueError(f"{name} has {len(values)} values for {len(sources)} pictures")
                    _check_numbers(values)
                _check_numbers(
                    value for name, value in row.items() if name in ("images", FAILED) or name.endswith("_se")
                )
            {key: str(content[key]) for key in ("generator", "pictures", "image_size")}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{where} is no report of saminv bench quality ({type(error).__name__}: {error}). It is the JSON that "
                "that command writes."
            ) from error
        return cls(where, content, rows, sources)

    def values(self, key: Key, metric: str) -> dict[str, float]:
        """A figure of the single pictures by name, where it is known and finite."""
        each = self.rows[key].get("each", {}).get(metric, [])
        return {name: float(value) for name, value in zip(self.sources, each) if known(value)}


def known(value: Any) -> bool:
    """Whether something is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def _check_numbers(values: Iterable[Any]) -> None:
    wrong = [value for value in values if value is not None and not isinstance(value, (int, float))]
    if wrong:
        raise ValueError(f"{wrong[0]!r:.40} is no number")


def _steps(row: Mapping[str, Any]) -> int | None:
    return None if row["steps"] is None else int(row["steps"])


def check_alike(old: WrittenReport, new: WrittenReport) -> None:
    """Raise ``InputError`` unless both reports are of the same pictures, generator, size and protocol."""
    both = ("fingerprint",) if all(report.content.get("fingerprint") for report in (old, new)) else ("generator",)
    for key in (*both, "image_size", "protocol", "pictures"):
        values = [report.content.get(key) for report in (old, new)]
        if values[0] != values[1]:
            what = {"fingerprint": "generator", "image_size": "size of the pictures", "pictures": "number of pictures"}
            raise InputError(
                f"{old.where} and {new.where} cannot be compared: the {what.get(key, key)} differs "
                f"({shown(values[0])} there, {shown(values[1])} here). Measure both alike."
            )
    if not (old.sources and new.sources) or old.sources == new.sources:
        return
    names = [name for name in {**old.sources, **new.sources} if old.sources.get(name) != new.sources.get(name)]
    raise InputError(
        f"{old.where} and {new.where} cannot be compared: {len(names)} of their pictures differ, for example "
        f"{names[0]} ({shown(old.sources.get(names[0]))} there, {shown(new.sources.get(names[0]))} here)."
    )


def shown(value: Any) -> str:
    """A value as a message shows it."""
    return "none" if value is None else f"{value!s:.40}"


def row_words(keys: Iterable[Key]) -> str:
    """Rows in words."""
    return ", ".join(_one_row(key) for key in keys)


def _one_row(key: Key) -> str:
    return key[0] if key[1] is None else f"{key[0]} with {key[1]} steps"

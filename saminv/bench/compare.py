"""Two reports of ``saminv bench quality``: what has changed beyond noise, and whether something got worse.

Where both have the values of the single pictures, differences are taken picture by picture, which leaves out what
pictures differ in among themselves; else the standard errors of both means are pooled.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from .._errors import InputError
from ..metrics import METRICS, SET_METRICS
from .edits import EDITS
from .rows import HIGHER, LOWER
from .written import FAILED, Key, WrittenReport, check_alike, known, row_words, shown

LEVEL = 0.01
"""How often chance alone may call a single figure changed."""
TOLERANCE = 0.001
"""Change relative to the figure that is never worth a word."""
BETTER, WORSE, SAME, UNKNOWN = "better", "worse", "same", "not judged"


@dataclass(frozen=True)
class Change:
    """One figure of a method in two reports.

    Attributes:
        method, steps: Of the row.
        metric: Name of the figure.
        before, after: Its value; over the pictures that both have where it is compared picture by picture.
        noise: How far it may move by chance at the level asked for; None where no spread is known.
        pairs: Pictures that were compared one by one; 0 where standard errors were pooled.
        verdict: "better", "worse", "same" or "not judged".
    """

    method: str
    steps: int | None
    metric: str
    before: float
    after: float
    noise: float | None
    pairs: int
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """What has changed between two reports.

    Attributes:
        before, after: Where they come from.
        changes: Of each figure that both have.
        notes: What else differs.
        level: How often chance alone calls a figure changed.
        tolerance: Relative change that does not count.
    """

    before: str
    after: str
    changes: list[Change]
    notes: list[str]
    level: float
    tolerance: float

    @property
    def worse(self) -> list[Change]:
        """What got worse beyond noise."""
        return [change for change in self.changes if change.verdict == WORSE]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "worse": len(self.worse)}


def compare_quality(
    before: str | Path | Mapping[str, Any],
    after: str | Path | Mapping[str, Any],
    level: float = LEVEL,
    tolerance: float = TOLERANCE,
) -> Comparison:
    """Compare two reports of the same pictures, steps and generator.

    A figure has changed if it moved by more than chance allows, by Student's distribution at ``level``, and by more
    than ``tolerance``. FID and other figures of sets have no spread and are not judged, nor is time.

    Args:
        before, after: JSON files of ``saminv bench quality``, or what is in them.
        level: Probability at which chance alone calls a figure changed, above 0 and below 1.
        tolerance: Change relative to the figure before that does not count, from 0 up.

    Raises:
        InputError: If a file is no such report, or they are of different pictures, steps, generators, sizes or
            protocols, or have no method in common.
    """
    if not 0 < level < 1 or not 0 <= tolerance < math.inf:
        raise InputError(f"level must lie between 0 and 1 and tolerance be 0 or more, got {level} and {tolerance}.")
    old, new = (WrittenReport.read(source) for source in (before, after))
    check_alike(old, new)
    common = [key for key in old.rows if key in new.rows]
    if not common:
        raise InputError(
            f"{old.where} and {new.where} have no method with the same steps in common: {row_words(old.rows)} there, "
            f"{row_words(new.rows)} here. Measure the same methods with the same number of steps."
        )
    changes = [change for key in common for change in _changes(old, new, key, level, tolerance)]
    return Comparison(old.where, new.where, changes, _notes(old, new), level, tolerance)


def _changes(old: WrittenReport, new: WrittenReport, key: Key, level: float, tolerance: float) -> list[Change]:
    """All figures that both reports have of a row."""
    before, after = old.rows[key], new.rows[key]
    found = []
    for metric in old.content.get("definitions", {}) or _figures(before):
        if metric == "seconds":
            continue
        one, other = old.values(key, metric), new.values(key, metric)
        shared = [name for name in one if name in other]
        if shared:
            differences = [other[name] - one[name] for name in shared]
            first, second = (statistics.fmean(values[name] for name in shared) for values in (one, other))
            noise = _paired_noise(differences, level)
        elif known(before.get(metric)) and known(after.get(metric)):
            first, second = float(before[metric]), float(after[metric])
            noise = _pooled_noise(before, after, metric, level)
        else:
            continue
        verdict = _verdict(first, second, noise, _better(metric, old, new), tolerance)
        found.append(Change(before["method"], key[1], metric, first, second, noise, len(shared), verdict))
    first, second = (float(row.get(FAILED) or 0) for row in (before, after))
    if first != second:
        verdict = _verdict(first, second, 0.0, LOWER, 0.0)
        found.append(Change(before["method"], key[1], FAILED, first, second, 0.0, 0, verdict))
    return found


def _figures(row: Mapping[str, Any]) -> list[str]:
    """Names of the metrics of a row of a report that defines none."""
    return [name for name in row if name in METRICS or name in SET_METRICS]


def _paired_noise(differences: Sequence[float], level: float) -> float | None:
    """How far a mean of differences may be from 0 by chance; None for a single one."""
    count = len(differences)
    if count < 2:
        return None
    return _quantile(level, count - 1) * statistics.stdev(differences) / math.sqrt(count)


def _pooled_noise(before: Mapping[str, Any], after: Mapping[str, Any], metric: str, level: float) -> float | None:
    """How far two means may be apart by chance, by Welch's approximation; None where an error is not known."""
    errors = [row.get(f"{metric}_se") for row in (before, after)]
    counts = [row.get("images") or 0 for row in (before, after)]
    if not all(map(known, errors)) or min(counts) < 2:
        return None
    squares = [float(error) ** 2 for error in errors if error is not None]
    if not sum(squares):
        return 0.0
    freedom = sum(squares) ** 2 / sum(square**2 / (count - 1) for square, count in zip(squares, counts))
    return _quantile(level, freedom) * math.sqrt(sum(squares))


def _quantile(level: float, freedom: float) -> float:
    """Two-sided quantile of Student's distribution."""
    return float(stats.t.ppf(1 - level / 2, freedom))


def _verdict(before: float, after: float, noise: float | None, better: str | None, tolerance: float) -> str:
    if noise is None or better is None:
        return UNKNOWN
    moved = after - before
    # Differences of equal numbers leave a trace of rounding.
    if abs(moved) <= max(noise, tolerance * abs(before), 1e-12):
        return SAME
    return BETTER if (moved > 0) == (better == HIGHER) else WORSE


def _better(metric: str, old: WrittenReport, new: WrittenReport) -> str | None:
    """Which way is better: as a report says it, or as the metric does."""
    for report in (new, old):
        said = report.content.get("better", {}).get(metric)
        if said in (HIGHER, LOWER):
            return str(said)
    for columns in EDITS.values():
        if metric in columns:
            return columns[metric][1]
    if metric in METRICS or metric in SET_METRICS:
        # The class says it; building the metric could ask for weights.
        factory: Any = METRICS.get(metric) if metric in METRICS else SET_METRICS.get(metric)
        kind = getattr(factory, "func", factory)
        return HIGHER if getattr(kind, "higher_is_better", False) else LOWER
    return None


def _notes(old: WrittenReport, new: WrittenReport) -> list[str]:
    """What differs besides the figures, in sentences."""
    found = []
    if not (old.sources and new.sources):
        found.append("A report does not say which pictures it is of; only their number was compared.")
    for report, other in ((old, new), (new, old)):
        alone = [key for key in report.rows if key not in other.rows]
        if alone:
            found.append(f"Only in {report.where}: {row_words(alone)}.")
    for name in ("saminv", "torch", "device"):
        pair = [report.content.get(name) for report in (old, new)]
        if None not in pair and pair[0] != pair[1]:
            found.append(f"{name} differs: {shown(pair[0])} before, {shown(pair[1])} after.")
    settings = [report.content.get("settings") or {} for report in (old, new)]
    for name in sorted({**settings[0], **settings[1]}):
        pair = [setting.get(name) for setting in settings]
        # What was not given is the default.
        if pair[0] != pair[1] and not (None in pair and {*pair} & {"auto", 0}):
            found.append(f"The setting {name} differs: {shown(pair[0])} before, {shown(pair[1])} after.")
    return found

"""What a run has come to as a whole: distributions of its numbers, how pictures ended, and what was noticed."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import InputError
from .._plots import new_figure, save_figure
from ..editing._summary import align
from ..metrics import METRICS
from .folder import FAILED
from .manifest import Record, read_manifest

QUANTILES = {"min": 0.0, "p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
COLUMNS = ("count", "mean", "std", *QUANTILES)
"""Of a distribution; ``std`` is that of the pictures themselves, divided by their number."""
HIGHER_IS_BETTER = ("psnr", "ssim")
TITLES = {"psnr": "PSNR, dB", "ssim": "SSIM", "mse": "MSE", "domain_distance": "domain distance"}
DIGITS = {"psnr": 2, "perceptual": 4, "mse": 5, "loss": 4, "steps": 0, "seconds": 1, "domain_distance": 2}
COMMON = ("psnr", "ssim", "perceptual", "steps", "seconds", "domain_distance")
RANKED = ("psnr", "ssim", "perceptual", "mse", "loss", "steps", "seconds", "domain_distance")
"""Numbers by which pictures can be ordered."""
SHARE = "share/"


@dataclass(frozen=True)
class Summary:
    """A run as a whole.

    Attributes:
        folder: Of the run.
        settings: That all results share.
        records: Of the pictures that were inverted, by name.
        failed: The reason for each picture that was passed over.
        metric: Name of the perceptual metric, as far as it is known.
        statuses: Number of pictures by how they ended.
        notes: Number of pictures by what was noticed; notes that differ by names and numbers count as one, and the
            first of them is shown.
        values: Numbers by quantity and picture; what is unknown or not finite is left out.
    """

    folder: Path
    settings: Mapping[str, Any]
    records: Mapping[str, Record]
    failed: Mapping[str, str]
    metric: str | None
    statuses: Mapping[str, int]
    notes: Mapping[str, int]
    values: Mapping[str, Mapping[str, float]]

    @property
    def distributions(self) -> dict[str, dict[str, float]]:
        """Count, mean, deviation and quantiles of each quantity that is known."""
        shown = [*COMMON, *(key for key in self.values if key.startswith(SHARE))]
        return {key: _distribution(list(self.values[key].values())) for key in shown if self.values.get(key)}

    def title(self, key: str) -> str:
        """What a quantity is called."""
        if key == "perceptual" and self.metric:
            return f"perceptual ({self.metric})"
        return f"share of {key.removeprefix(SHARE)}" if key.startswith(SHARE) else TITLES.get(key, key)

    def ranking(self, by: str) -> list[str]:
        """Names of the pictures from worst to best.

        Raises:
            InputError: If ``by`` is none of ``RANKED``.
        """
        if by not in RANKED:
            raise InputError(f"Pictures can be ordered by {', '.join(RANKED)}; got {by!r}.")
        found = self.values.get(by, {})
        # Sorted twice, so that equal ones keep an order that does not depend on how the run went.
        return sorted(sorted(found), key=lambda name: found[name], reverse=by not in HIGHER_IS_BETTER)


def summarise_run(folder: str | os.PathLike[str]) -> Summary:
    """Read what a run has come to, also while it goes on; neither its generator nor its pictures are needed.

    Raises:
        RunError: If the folder holds no run, one of another version, or a damaged one.
    """
    header, records = read_manifest(folder)
    done = {name: record for name, record in records.items() if record.get("status") != FAILED}
    notes: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for name, record in records.items():
        for kind, text in {_kind(text, name): text for text in record.get("warnings") or ()}.items():
            notes[kind] += 1
            examples.setdefault(kind, text)
    metrics = [metric for metric in map(_metric, done.values()) if metric is not None]
    return Summary(
        folder=Path(folder),
        settings=header.get("settings") or {},
        records=done,
        failed={name: str(record.get("reason")) for name, record in records.items() if name not in done},
        metric=metrics[0] if metrics else None,
        statuses=dict(Counter(str(record.get("status")) for record in records.values()).most_common()),
        notes={examples[kind]: count for kind, count in notes.most_common()},
        values=_values(done),
    )


def numbers_of(record: Record) -> dict[str, float]:
    """All known numbers of a picture, the perceptual error as "perceptual"."""
    found = {"seconds": record.get("seconds"), **(record.get("metrics") or {})}
    metric = _metric(record)
    found["perceptual"] = None if metric is None else found.get(metric)
    return {key: float(value) for key, value in found.items() if isinstance(value, (int, float))}


def describe_run(summary: Summary) -> str:
    """Tables for the terminal: pictures by status, distributions, what was passed over, what was noticed."""
    total = len(summary.records) + len(summary.failed)
    by_status = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in summary.statuses.items())
    parts = [f"{printable(summary.folder)}: {total} picture{'s' if total != 1 else ''}{by_status and f': {by_status}'}"]
    found = summary.distributions
    if found:
        lines = [["", *(name.replace("p", "", 1) + " %" if name[0] == "p" else name for name in COLUMNS)]]
        lines += [
            [summary.title(key), *(figure(key, name, row[name]) for name in COLUMNS)] for key, row in found.items()
        ]
        # The last column of a table is for text.
        parts.append(align([[*line, ""] for line in lines]))
    if summary.failed:
        parts.append(
            "passed over:\n" + "\n".join(f"  {printable(n)}: {printable(w)}" for n, w in summary.failed.items())
        )
    if summary.notes:
        counted = (f"  {count} x  {printable(text)}" for text, count in summary.notes.items())
        parts.append("noticed, with an example each:\n" + "\n".join(counted))
    return "\n\n".join(parts)


def figure(key: str, column: str, value: float) -> str:
    """A number of a distribution as text."""
    return f"{value:.{0 if column == 'count' else digits_of(key, column)}f}"


def digits_of(key: str, column: str = "") -> int:
    """How many digits a quantity is shown with."""
    return DIGITS.get(key, 3) + (key == "steps" and column in ("mean", "std"))


def printable(text: object) -> str:
    """Text in one line that any stream takes; names of files may hold what no encoding has."""
    return " ".join(str(text).split()).encode("utf-8", "replace").decode()


def plot_histograms(summary: Summary, path: str | os.PathLike[str]) -> Path:
    """Draw a histogram of each quantity into one picture.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        InputError: If no picture has been inverted yet.
        OutputError: If the file cannot be written.
    """
    keys = list(summary.distributions)
    if not keys:
        raise InputError(f"No picture of {summary.folder} has been inverted yet, so there is nothing to plot.")
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    drawing = new_figure(4 * columns, 2.6 * rows)
    for index, key in enumerate(keys):
        axes = drawing.add_subplot(rows, columns, index + 1)
        _draw_histogram(axes, summary, key)
    return save_figure(drawing, path)


def histogram(summary: Summary, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Counts `[N]` and edges `[N + 1]` of a quantity's histogram; shares are counted from 0 to 1."""
    values = np.array(list(summary.values[key].values()))
    share = key.startswith(SHARE)
    bins = int(np.clip(np.ceil(np.sqrt(len(values))), 20 if share else 5, 40))
    low, high = (0.0, 1.0) if share else (float(values.min()), float(values.max()))
    # A little room about a single value.
    margin = 0.0 if high > low else max(abs(high) * 0.05, 0.5 if key == "steps" else 1e-3)
    return np.histogram(values, bins=bins, range=(low - margin, high + margin))


def _draw_histogram(axes: Any, summary: Summary, key: str) -> None:
    counts, edges = histogram(summary, key)
    axes.stairs(counts, edges, fill=True, color="#4a89a8")
    middle = summary.distributions[key]["median"]
    axes.axvline(middle, color="#b3541e", linewidth=1.5)
    axes.set_title(summary.title(key), loc="left", fontsize=10)
    axes.set_title(f"median {figure(key, 'median', middle)}", loc="right", fontsize=9, color="#b3541e")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _distribution(values: Sequence[float]) -> dict[str, float]:
    array = np.asarray(values, dtype=np.float64)
    found = {"count": len(array), "mean": float(array.mean()), "std": float(array.std())}
    return found | {name: float(np.quantile(array, part)) for name, part in QUANTILES.items()}


def _values(records: Mapping[str, Record]) -> dict[str, dict[str, float]]:
    values: dict[str, dict[str, float]] = {}
    for name, record in records.items():
        for key, value in numbers_of(record).items():
            values.setdefault(key, {})[name] = value
    return values


def _metric(record: Record) -> str | None:
    """Name of the perceptual metric of a picture."""
    if record.get("metric"):
        return str(record["metric"])
    known = [name for name in METRICS if name in (record.get("metrics") or {}) and name not in HIGHER_IS_BETTER]
    # Every record has the mean squared error; it is the perceptual one if there is no other.
    return max(known, key=lambda name: name != "mse", default=None)


def _kind(text: str, name: str) -> str:
    """A note without what belongs to one picture."""
    return re.sub(r"\d+(\.\d+)?", "#", text.replace(name, "*"))

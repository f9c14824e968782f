"""A sweep over τ on disk: the distortion-editability curve as numbers and as a picture, and what lies behind it."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .. import images
from .._errors import MissingExtraError
from .._files import atomic_write, ensure_folder
from .._plots import new_figure, save_figure
from .._search import Sweep
from ..editing.editability import editability
from ..editing.sheet import draw_sheet
from ..solution import Solution

FORMAT = "saminv.sweep.1"


def save_sweep(sweep: Sweep, folder: str | os.PathLike[str], *, solutions: bool = False) -> dict[str, Any]:
    """Write a sweep into a folder, each file atomically.

    Files: ``curve.json``, with the numbers of each picture at each τ; ``curve.png``, if matplotlib is there;
    ``NAME-sweep.png`` for each picture, a row for each of its allocations; with ``solutions`` also
    ``NAME-tau-T.safetensors`` for each of them.

    Args:
        sweep: From :func:`saminv.sweep`.
        folder: Made if absent.
        solutions: Keep the solutions.

    Returns:
        What ``curve.json`` holds; "files" are the paths by kind, "note" says what was left out.

    Raises:
        OutputError: If something cannot be written.
    """
    place = ensure_folder(folder)
    curve = sweep_curve(sweep)
    content: dict[str, Any] = {"format": FORMAT, **curve}
    files: dict[str, list[str]] = {"sheets": [], "solutions": []}
    for row, name in enumerate(curve["names"]):
        chosen = _distinct(sweep, row)
        sheet = _sheet(chosen)
        files["sheets"].append(str(images.save(place / f"{name}-sweep.png", sheet)))
        if solutions:
            for tau, solution in chosen.items():
                files["solutions"].append(str(solution.save(place / f"{name}-tau-{tau:g}.safetensors")))
    note = None
    try:
        files["curve"] = [str(plot_curve(curve, place / "curve.png"))]
    except MissingExtraError as error:
        note = str(error)
    with atomic_write(place / "curve.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return {**content, "files": files, "note": note}


def sweep_curve(sweep: Sweep) -> dict[str, Any]:
    """The curve as plain JSON values: names of the pictures, and rows by τ with lists over the pictures."""
    first = sweep.solutions[0]
    cached: dict[bytes, list[float]] = {}
    rows = sweep.curve()
    for row, solution in zip(rows, sweep.solutions):
        key = solution.regions.labels.cpu().numpy().tobytes()
        if key not in cached:
            cached[key] = editability(solution).tolist()
        row["editability"] = cached[key]
    settings = {key: value for key, value in first.provenance.items() if key not in ("names", "crops", "tau")}
    content = {"names": first.provenance["names"], "metric": first.provenance["metric"], "work": sweep.work}
    return {**content, "rows": _finite(rows), "settings": settings}


def describe_curve(curve: Mapping[str, Any]) -> str:
    """The medians of a curve as a table of text."""
    metric = curve["metric"]
    lines = [f"{'tau':>6}  {'PSNR dB':>8}  {'SSIM':>6}  {metric:>10}  {'editability':>11}  shares of the area"]
    for row in curve["rows"]:
        numbers = [_median(row[key]) for key in ("psnr", "ssim", metric, "editability")]
        shares = ", ".join(f"{name} {_median(values):.0%}" for name, values in row["shares"].items())
        psnr, ssim, perceptual, edits = numbers
        lines.append(f"{row['tau']:>6g}  {psnr:>8.2f}  {ssim:>6.3f}  {perceptual:>10.3f}  {edits:>11.2f}  {shares}")
    return "\n".join(lines)


def plot_curve(curve: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Draw PSNR against editability, and both over τ; returns the picture's path.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        OutputError: If the picture cannot be written.
    """
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    rows = curve["rows"]
    taus = [row["tau"] for row in rows]
    for place in range(len(curve["names"])):
        pair = [[_number(row[key][place]) for row in rows] for key in ("editability", "psnr")]
        left.plot(*pair, color="tab:blue", alpha=0.35, linewidth=1)
    medians = {key: [_median(row[key]) for row in rows] for key in ("editability", "psnr")}
    left.plot(medians["editability"], medians["psnr"], marker="o", color="tab:blue", label="median")
    for tau, x, y in zip(taus, medians["editability"], medians["psnr"]):
        left.annotate(f"{tau:g}", (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
    left.set(xlabel="editability (part of a change in W+)", ylabel="PSNR (dB)", title="labels are tau")
    right.plot(taus, medians["psnr"], marker="o", color="tab:blue")
    right.set(xlabel="tau", ylabel="PSNR (dB)")
    other = right.twinx()
    other.plot(taus, medians["editability"], marker="s", color="tab:orange")
    other.set(ylabel="editability", ylim=(0, 1.1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return save_figure(figure, path)


def _distinct(sweep: Sweep, row: int) -> dict[float, Solution]:
    """The allocations of one picture by the least τ that gives them, rising."""
    found: dict[float, Solution] = {}
    last: torch.Tensor | None = None
    for tau, solution in zip(sweep.taus, sweep.solutions):
        labels = solution.regions.labels[row]
        if last is None or not torch.equal(labels, last):
            found[tau] = solution[row]
        last = labels
    return found


def _sheet(chosen: Mapping[float, Solution]) -> torch.Tensor:
    (tau, first), *others = chosen.items()
    first = _named(first, tau)
    return draw_sheet(first, others={f"tau {other:g}": solution for other, solution in others})


def _named(solution: Solution, tau: float) -> Solution:
    names = [f"{name}, tau {tau:g}" for name in solution.provenance["names"]]
    solution.provenance = {**solution.provenance, "names": names}
    return solution


def _median(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else math.nan


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _finite(value: Any) -> Any:
    """JSON has no infinities and no nan."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

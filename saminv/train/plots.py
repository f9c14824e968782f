"""Pictures of a training and of an evaluation; they need matplotlib, the extra ``plot``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._errors import InputError, MissingExtraError
from .._plots import new_figure, save_figure
from ._logs import read_rows
from .loop import LOG, VALIDATION
from .settings import LOG as GENERATOR_LOG
from .settings import SCORES


def plot_training(folder: str | Path, path: str | Path | None = None) -> Path:
    """Draw the losses and the R² of a training from its logs; returns the picture's path.

    Args:
        folder: Of the training.
        path: The picture, ``training.png`` in the folder if None.

    Raises:
        InputError: If the folder has no logs.
        MissingExtraError: If matplotlib is not installed.
        OutputError: If the picture cannot be written.
    """
    folder = Path(folder)
    figure = new_figure(10, 4)
    training, validation = _columns(folder / LOG), _columns(folder / VALIDATION)
    if not training and not validation:
        raise InputError(f"{folder} has no {LOG} and no {VALIDATION}; train first.")
    left, right = figure.subplots(1, 2)
    for name, columns in (("training", training), ("validation", validation)):
        if columns:
            left.plot(columns["step"], columns["loss"], label=name)
    left.set(xlabel="step", ylabel="loss", yscale="log")
    for name in [name for name in validation if name.startswith("r2_")]:
        right.plot(validation["step"], validation[name], label=name.removeprefix("r2_"))
    right.set(xlabel="step", ylabel="R² over the pixels held out", ylim=(-0.1, 1))
    return _save(figure, (left, right), folder / "training.png" if path is None else path)


def plot_generator(folder: str | Path, path: str | Path | None = None) -> Path:
    """Draw the scores and the losses of a generator's training; returns the picture's path.

    Args:
        folder: Of the training.
        path: The picture, ``curve.png`` in the folder if None.

    Raises:
        InputError: If the folder has no scores yet.
        MissingExtraError: If matplotlib is not installed.
        OutputError: If the picture cannot be written.
    """
    folder = Path(folder)
    figure = new_figure(10, 4)
    scores, losses = read_rows(folder / SCORES), read_rows(folder / GENERATOR_LOG)
    if not scores:
        raise InputError(f"{folder} has no {SCORES} yet; train first.")
    left, right = figure.subplots(1, 2)
    left.plot([row["kimg"] for row in scores], [row["score"] for row in scores], marker="o", markersize=3)
    left.set(xlabel="thousand images shown", ylabel="score (lower is better)", ylim=(0, None))
    for name, shown in (("loss", "generator"), ("critic", "discriminator")):
        rows = [row for row in losses if name in row]
        right.plot([row["kimg"] for row in rows], [row[name] for row in rows], label=shown)
    right.set(xlabel="thousand images shown", ylabel="loss")
    return _save(figure, (left, right), folder / "curve.png" if path is None else path)


def plot_evaluation(record: Mapping[str, Any], path: str | Path) -> Path:
    """Draw the calibration curves and the table of allocations of an evaluation; returns the picture's path.

    Args:
        record: From :func:`saminv.train.evaluate_invertibility`.
        path: The picture.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        OutputError: If the picture cannot be written.
    """
    figure = new_figure(10, 4.5)
    left, right = figure.subplots(1, 2)
    highest = 0.0
    for space in record["spaces"]:
        curve = record["per_space"][space]["calibration"]
        left.plot(curve["predicted"], curve["measured"], marker="o", markersize=3, label=space)
        highest = max([highest, *curve["predicted"], *curve["measured"]])
    left.plot([0, highest], [0, highest], color="grey", linewidth=0.8, linestyle="--", label="as predicted")
    left.axvline(record["tau"], color="grey", linewidth=0.8, linestyle=":", label="tau")
    left.set(xlabel="predicted error", ylabel="mean measured error")
    _draw_table(right, record["spaces"], record["confusion"]["segments"])
    return _save(figure, (left,), path)


def check_plots() -> bool:
    """Whether matplotlib is installed."""
    try:
        new_figure(1, 1)
    except MissingExtraError:
        return False
    return True


def _draw_table(axes: Any, spaces: Sequence[str], counts: Sequence[Sequence[int]]) -> None:
    axes.imshow(counts, cmap="Blues")
    ticks = range(len(spaces))
    axes.set(xticks=ticks, yticks=ticks, xticklabels=spaces, yticklabels=spaces)
    axes.set(xlabel="by the prediction", ylabel="by measurement", title="segments allocated")
    highest = max(map(max, counts))
    for row in ticks:
        for column in ticks:
            dark = counts[row][column] > 0.6 * highest
            axes.text(column, row, counts[row][column], ha="center", va="center", color="white" if dark else "black")


def _columns(path: Path) -> dict[str, list[float]]:
    """The columns of a log by name; empty where there is none."""
    rows = read_rows(path)
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _save(figure: Any, axes: Sequence[Any], path: str | Path) -> Path:
    for one in axes:
        one.grid(alpha=0.3)
        if one.get_legend_handles_labels()[1]:
            one.legend()
    return save_figure(figure, path)

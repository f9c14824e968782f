"""Figures by matplotlib, the extra ``plot``."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from ._errors import MissingExtraError
from ._files import atomic_write


def new_figure(width: float, height: float) -> Any:
    """An empty figure of a size in inches.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        # The figure alone: pyplot would choose a window system, and keep every figure.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError('Plots need matplotlib: pip install "saminv[plot]".') from error
    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def save_figure(figure: Any, path: str | PathLike[str]) -> Path:
    """Write a figure as PNG; returns its path.

    Raises:
        OutputError: If it cannot be written.
    """
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")
    return Path(path)

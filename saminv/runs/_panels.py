"""Small pictures of one result for the gallery: input, reconstruction, and regions by space."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import images
from .._errors import ImageError, SolutionError
from ..editing._draw import Colour, enlarge, enlarge_labels, paint_labels, panel_size, space_colours
from ..editing.sheet import last_layer
from ..solution import Solution, read_solution
from .manifest import Record

SHEET_WIDTH = 1600
GLIMPSE = 0.2
"""How much of the picture is seen through the colours of its regions."""


@dataclass(frozen=True)
class Panel:
    """One small picture: its title, its file, and a larger one that it leads to."""

    title: str
    file: Path
    size: tuple[int, int]
    link: Path | None = None


@dataclass
class Panels:
    """All pictures of one result.

    Attributes:
        legend: Colour, name and share of each space.
        remarks: What is missing, as sentences.
    """

    pictures: list[Panel] = field(default_factory=list)
    legend: list[tuple[Colour, str, float]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def draw_panels(run: Path, record: Record, folder: Path) -> Panels:
    """Write the small pictures of a result into a folder, as far as the run kept something to draw them from."""
    found, files = Panels(), record.get("files") or {}
    arrays: dict[str, np.ndarray] = {}
    if "solution" in files:
        try:
            arrays = _of_solution(read_solution(run / files["solution"]), found)
        except SolutionError as error:
            found.remarks.append(str(error))
    if not arrays:
        arrays = _of_files(run, record, found)
    for title, pixels in arrays.items():
        link = run / files["image"] if title == "reconstruction" and "image" in files else None
        path = folder / f"{_stem(record)}-{title.split()[0]}.png"
        images.save(path, images.from_uint8(pixels))
        found.pictures.append(Panel(title, path, pixels.shape[:2], link))
    return found


def remove_others(folder: Path, kept: Iterable[Path]) -> None:
    """Delete the small pictures of earlier galleries."""
    names = {path.name for path in kept}
    for path in folder.glob("[0-9a-f]*-*.png"):
        stem, _, title = path.stem.partition("-")
        ours = len(stem) == 16 and title in ("input", "reconstruction", "regions", "sheet")
        if ours and path.name not in names:
            path.unlink(missing_ok=True)


def _stem(record: Record) -> str:
    """A file name for any name of a picture."""
    return hashlib.sha256(os.fsencode(record["name"])).hexdigest()[:16]


def _of_solution(solution: Solution, found: Panels) -> dict[str, np.ndarray]:
    size = panel_size(*solution.image.shape[-2:])
    target = _pixels(solution.target, size)
    regions = solution.regions
    colours = space_colours(regions.spaces, last_layer(solution))
    labels = enlarge_labels(regions.labels[0].cpu().numpy(), size)
    palette = {index: colours[name] for index, name in enumerate(regions.spaces)}
    found.legend = [(colours[name], name, float(regions.share(name)[0])) for name in regions.spaces]
    return {
        "input": target,
        "reconstruction": _pixels(solution.image, size),
        "regions by space": paint_labels(labels, palette, target, GLIMPSE),
    }


def _of_files(run: Path, record: Record, found: Panels) -> dict[str, np.ndarray]:
    """What can be shown without a solution: the picture itself, and what else was kept."""
    files = record.get("files") or {}
    arrays = {"input as it was given": _of_file(record.get("source"), found)}
    if "image" in files:
        arrays["reconstruction"] = _of_file(run / files["image"], found)
    if "sheet" in files:
        arrays["sheet"] = _of_file(run / files["sheet"], found, SHEET_WIDTH)
    return {title: pixels for title, pixels in arrays.items() if pixels is not None}


def _of_file(path: str | Path | None, found: Panels, width: int | None = None) -> np.ndarray | None:
    if path is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = images.load(path).tensor
    except (ImageError, OSError) as error:
        found.remarks.append(str(error))
        return None
    height, across = image.shape[-2:]
    if width is None:
        return _pixels(image, panel_size(height, across))
    factor = min(1.0, width / across)
    return _pixels(image, (max(1, round(height * factor)), max(1, round(across * factor))))


def _pixels(image: Tensor, size: tuple[int, int]) -> np.ndarray:
    shown = torch.nan_to_num(image[:1].detach().float(), nan=0.0, posinf=1.0, neginf=-1.0)
    return enlarge(images.to_uint8(shown)[0], size)

"""The sheet: one picture that shows inputs, segments, spaces, reconstructions, errors and edits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import InputError, Status
from ..images import from_uint8, to_uint8
from ..solution import Solution
from ._draw import (
    HEAT_RAMP,
    Cell,
    Colour,
    Page,
    distinct_colour,
    enlarge,
    enlarge_labels,
    paint_labels,
    panel_size,
    ramp,
    space_colours,
    write_labels,
)
from ._summary import percent
from .directions import direction_names
from .edits import edit_solution
from .references import caption, signed

SHOWN = ("car_hue", "car_size", "car_x", "sky_hue")
"""Directions of the demo's generator that are shown where no edits are named."""
SHOWN_OTHERWISE = 3
ERROR_SCALES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)

Edit = tuple[Any, float]


@dataclass(frozen=True)
class _Row:
    """One solution as it is drawn: the name of a comparison or "", its pictures `[B, 3, H, W]`, its errors."""

    name: str
    solution: Solution
    edited: list[Tensor]
    error: np.ndarray


def draw_sheet(
    solution: Solution, edits: Sequence[Edit] | None = None, others: Mapping[str, Solution] | None = None
) -> Tensor:
    """Draw a solution: input, segments, space of each region, reconstruction, error and edits, a row per image.

    Args:
        solution: Of B images.
        edits: Pairs of a direction and a strength; some known directions where None.
        others: Solutions of the same images by name, which get a row each below the image's own, with the same edits.

    Returns:
        `[1, 3, H', W']` in [-1, 1].

    Raises:
        InputError: If an edit is no pair, a direction is unknown, or another solution has other images.
    """
    named = {"": solution, **(others or {})}
    for name, other in named.items():
        if other.image.shape != solution.image.shape:
            raise InputError(f"{name!r} has images {list(other.image.shape)}; needed are {list(solution.image.shape)}.")
    edits = default_edits(solution) if edits is None else _checked(edits)
    rows = [_row(name, other, edits) for name, other in named.items()]
    scale = _error_scale([row.error for row in rows])
    page = Page(panel_size(*solution.image.shape[-2:]), 5 + len(edits))
    page.add_header(_titles(solution, edits))
    for index in range(len(solution)):
        for row in rows:
            page.add_row(_cells(row, index, page.panel, scale), (row.name, _summary(row, index)) if row.name else None)
    return from_uint8(page.pixels())


def default_edits(solution: Solution) -> list[Edit]:
    """Edits to show where none are named; none for a generator without directions."""
    known = direction_names(solution.generator) if solution.generator is not None else []
    chosen = [name for name in SHOWN if name in known] or known[:SHOWN_OTHERWISE]
    return [(name, 1.0) for name in chosen]


def edit_caption(direction: Any, strength: float) -> tuple[str, str]:
    """Name and strength of an edit, as they are written on sheets and in file names."""
    return caption(direction), signed(strength)


def _checked(edits: Sequence[Edit]) -> list[Edit]:
    pairs = []
    for edit in edits:
        if not isinstance(edit, (tuple, list)) or len(edit) != 2 or not isinstance(edit[1], (int, float)):
            raise InputError(f"An edit of a sheet is a pair such as ('car_hue', 1.0), got {edit!r}.")
        pairs.append((edit[0], float(edit[1])))
    return pairs


def _row(name: str, solution: Solution, edits: Sequence[Edit]) -> _Row:
    edited = [_drawable(edit_solution(solution, direction, strength)) for direction, strength in edits]
    # Halved, so that 1 is the whole range from black to white.
    error = (_drawable(solution.image).clamp(-1, 1) - _drawable(solution.target)).abs().mean(dim=1) / 2
    return _Row(name, solution, edited, error.numpy())


def _drawable(images: Tensor) -> Tensor:
    """Images on the CPU; strong edits may leave the range of numbers."""
    return torch.nan_to_num(images.detach().cpu().float(), nan=0.0, posinf=1.0, neginf=-1.0)


def _error_scale(errors: Sequence[np.ndarray]) -> float:
    """Right end of the colour bar, one for all rows: a round number that few pixels exceed."""
    high = max(float(np.quantile(error, 0.99)) for error in errors)
    return next((scale for scale in ERROR_SCALES if scale >= high), ERROR_SCALES[-1])


def _titles(solution: Solution, edits: Sequence[Edit]) -> list[tuple[str, str]]:
    taus = {float(tau) for tau in solution.stats.get("tau", ())} if len(solution.regions.spaces) > 1 else set()
    fixed = [
        ("input", "as given to the generator"),
        ("segments", ""),
        ("space of each region", f"tau = {taus.pop():g}" if len(taus) == 1 else ""),
        ("reconstruction", ""),
        ("error", "mean over the channels"),
    ]
    captions = [edit_caption(*edit) for edit in edits]
    return fixed + [(name, f"edit, strength {strength}") for name, strength in captions]


def _summary(row: _Row, index: int) -> str:
    shares = _shares(row.solution, index)
    return f"everything in {shares[0][0]}" if len(shares) == 1 else "shared out among several spaces"


def _shares(solution: Solution, index: int) -> list[tuple[str, float]]:
    """Spaces that have a part of an image, with that part."""
    shares = [(name, float(solution.regions.share(name)[index])) for name in solution.regions.spaces]
    return [(name, share) for name, share in shares if share > 0]


def _cells(row: _Row, index: int, size: tuple[int, int], scale: float) -> list[Cell]:
    """The cells of one image of one solution from left to right."""
    solution, picture = row.solution, _pixels(row.solution.target, index, size)
    first = [_input(solution, index, picture), _segments(solution, index, picture)]
    error = ramp(HEAT_RAMP, np.clip(row.error[index] / scale, 0, 1))
    return [
        *([Cell(), Cell()] if row.name else first),
        _spaces(solution, index, picture),
        Cell(_pixels(solution.image, index, size), lines=_figures(solution, index)),
        Cell(enlarge(error, size), scale=f"{scale:.0%} of black to white"),
        *[Cell(_pixels(edited, index, size)) for edited in row.edited],
    ]


def _pixels(images: Tensor, index: int, size: tuple[int, int]) -> np.ndarray:
    return enlarge(to_uint8(_drawable(images[index : index + 1]))[0], size)


def _input(solution: Solution, index: int, picture: np.ndarray) -> Cell:
    names = solution.provenance.get("names") or []
    return Cell(picture, lines=[str(names[index])] if index < len(names) else [])


def _segments(solution: Solution, index: int, picture: np.ndarray) -> Cell:
    """Segments in colours, with their names if they have any."""
    if solution.segments is None:
        return Cell(picture, lines=["no segments"])
    ids = solution.segments[index].cpu().numpy()
    known = [int(label) for label in np.unique(ids)]
    labels = enlarge_labels(ids, picture.shape[:2])
    every = torch.unique(solution.segments).tolist()
    painted = paint_labels(labels, {label: distinct_colour(every.index(label)) for label in known}, picture, 0.35)
    names = {int(key): name for key, name in solution.provenance.get("segment_names", {}).items()}
    count = f"{len(known)} segment{'s' if len(known) != 1 else ''}"
    return Cell(write_labels(painted, labels, names), lines=[count])


def _spaces(solution: Solution, index: int, picture: np.ndarray) -> Cell:
    """The space of each region in colour, with a legend of names and shares."""
    colours = space_colours(solution.regions.spaces, last_layer(solution))
    labels = enlarge_labels(solution.regions.labels[index].cpu().numpy(), picture.shape[:2])
    palette: dict[int, Colour] = {i: colours[name] for i, name in enumerate(solution.regions.spaces)}
    shares = dict(_shares(solution, index))
    legend = [(colours[name], name, percent(shares.get(name, 0.0))) for name in solution.regions.spaces]
    return Cell(paint_labels(labels, palette, picture, 0.12), swatches=legend)


def last_layer(solution: Solution) -> int:
    """The last feature layer of a solution's generator, guessed from the image where the generator is not there."""
    sites = getattr(solution.generator, "feature_sites", ())
    layers = [int(name[1:]) for name in sites if name[1:].isdigit()]
    return max(layers, default=max(10, math.ceil(math.log2(max(solution.image.shape[-2:])) - 2) * 2))


def _figures(solution: Solution, index: int) -> list[str]:
    """What stands below a reconstruction."""
    metric = solution.provenance.get("metric", "")
    wanted = (("psnr", "PSNR {:.1f} dB"), ("ssim", "SSIM {:.3f}"), (metric, f"perceptual {{:.3f}} ({metric})"))
    lines = [form.format(float(solution.stats[key][index])) for key, form in wanted if key in solution.stats]
    status = Status(int(solution.status[index]))
    usual = status in (Status.COMPLETED, Status.PLATEAU, Status.REACHED)
    return lines if usual else [*lines, status.name.lower().replace("_", " ")]

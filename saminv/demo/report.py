"""What ``saminv demo`` does: one scene with strangers, inverted three ways, edited, measured and drawn."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import images
from .._errors import Status
from .._files import atomic_write, ensure_folder
from .._version import __version__
from ..editing import direction_names
from ..editing._summary import align, summarise, table
from ..editing.sheet import draw_sheet
from ..metrics.editing import change
from ..metrics.vision import load_vision
from ..solution import Solution
from .scenes import CAR_SEGMENTS, CONTINUOUS_FACTORS, FACTOR_INDEX, SceneBatch
from .strangers import sample_scenes

SEED = 12
"""A scene with a balloon and a poster, its car in full view."""
METHODS: Mapping[str, tuple[str, ...]] = {"SAM": ("W+", "F4", "F6", "F8"), "W+": ("W+",), "F10": ("F10",)}
EDITED = ("car_hue", "car_size", "car_x", "sky_hue")
STRENGTH = 1.5

Edits = list[tuple[str, float]]


@dataclass(frozen=True)
class DemoResult:
    """What a run of the demo has made.

    Attributes:
        report: Settings, figures and times; plain JSON values, as in report.json.
        solutions: By method, as far as the run came.
        text: The small table.
        interrupted: Whether Ctrl-C ended the run early.
    """

    report: dict[str, Any]
    solutions: dict[str, Solution]
    text: str
    interrupted: bool


def run_demo(
    invert: Callable[..., Solution],
    folder: str | Path,
    *,
    steps: int = 300,
    seed: int = SEED,
    device: str = "auto",
    progress: bool = False,
) -> DemoResult:
    """Invert a scene by SAM, in W+ and in F10; write scene.png, sheet.png, solution.safetensors and report.json.

    Args:
        invert: :func:`saminv.invert`, which stands above this folder.
        folder: Where to write; made if absent.
        steps: Of each inversion.
        seed: Of the scene.

    Raises:
        OutputError: If nothing can be written there; noticed before the work begins.
    """
    folder = ensure_folder(folder)
    scene = sample_scenes(1, seed=seed, strangers=True)
    images.save(folder / "scene.png", scene.images)
    solutions: dict[str, Solution] = {}
    seconds: dict[str, float] = {}
    for name, spaces in METHODS.items():
        begin = time.perf_counter()
        found = invert(scene.images, list(spaces), steps=steps, device=device, progress=progress)
        found.provenance["names"] = [f"scene {seed}"]
        solutions[name], seconds[name] = found, time.perf_counter() - begin
        if Status.INTERRUPTED in found.statuses:
            break
    sam = solutions["SAM"]
    sam.save(folder / "solution.safetensors")
    edits = _edits(scene, direction_names(sam.generator))
    others = {name: found for name, found in solutions.items() if name != "SAM"}
    images.save(folder / "sheet.png", draw_sheet(sam, edits, others))
    report = _report(scene, seed, solutions, seconds, edits)
    with atomic_write(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=2), encoding="utf-8")
    interrupted = any(Status.INTERRUPTED in found.statuses for found in solutions.values())
    return DemoResult(report, solutions, _text(report, edits), interrupted)


def _edits(scene: SceneBatch, known: Sequence[str]) -> Edits:
    """Edits towards the middle of each factor's range, where there is room for them."""
    chosen = [name for name in EDITED if name in known]
    return [(n, STRENGTH if scene.factors[0, FACTOR_INDEX[n]] < 0.5 else -STRENGTH) for n in chosen]


def _report(
    scene: SceneBatch, seed: int, solutions: Mapping[str, Solution], seconds: Mapping[str, float], edits: Edits
) -> dict[str, Any]:
    methods = {}
    car = torch.isin(scene.segments, torch.tensor(CAR_SEGMENTS))[0]
    for name, found in solutions.items():
        [row] = summarise(found.provenance, found.stats, found.status)
        in_car = found.regions.labels[0].cpu()[car]
        kept = {s: float((in_car == i).float().mean()) for i, s in enumerate(found.regions.spaces)}
        methods[name] = {**row, "seconds": round(seconds[name], 2), "car": kept, "effects": _effects(found, edits)}
    settings = {key: value for key, value in solutions["SAM"].provenance.items() if key not in ("names", "crops")}
    return {
        "saminv": __version__,
        "scene": {"seed": seed, "strangers": True},
        "settings": {**settings, "device": str(solutions["SAM"].image.device)},
        "edits": [{"direction": name, "strength": strength} for name, strength in edits],
        "methods": methods,
    }


def _effects(solution: Solution, edits: Edits) -> dict[str, float]:
    """Change of each edited factor, as the vision network reads it off the picture; ranges are [0, 1]."""
    edits = [(name, strength) for name, strength in edits if name in CONTINUOUS_FACTORS]
    network = load_vision()
    before = network.factors(_shown(solution.image))
    effects = {}
    for name, strength in edits:
        after = network.factors(_shown(solution.edit(name, strength)))
        moved = change(before[:, FACTOR_INDEX[name]], after[:, FACTOR_INDEX[name]], network.config.period(name))
        effects[name] = round(float(moved[0]), 4)
    return effects


def _shown(image: Tensor) -> Tensor:
    return torch.nan_to_num(image.detach().cpu().float()).clamp(-1, 1)


def _text(report: Mapping[str, Any], edits: Edits) -> str:
    """Figures of each method, and below them what the edits did."""
    rows = [{**row, "name": name} for name, row in report["methods"].items()]
    parts = [table(rows)]
    if edits:
        head = ["change by edit", *[f"{name} {strength:+g}" for name, strength in edits], ""]
        lines = [[row["name"], *[f"{row['effects'].get(name, 0.0):+.2f}" for name, _ in edits], ""] for row in rows]
        parts.append(align([head, *lines]))
    return "\n\n".join(parts)

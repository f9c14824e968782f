"""What a run keeps of each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import images
from .._errors import InputError
from ..solution import Solution

KINDS = ("solution", "image", "sheet")
RESULTS = "results"


@dataclass(frozen=True)
class SolutionWriter:
    """Writes the solution of each picture, its reconstruction, and the sheet if asked for; each file atomically.

    Attributes:
        folder: Of the run; files go into ``results`` below it.
        keep: Which of "solution" (NAME.safetensors), "image" (NAME.png) and "sheet" (NAME-sheet.png).

    Raises:
        InputError: If ``keep`` names something else or nothing.
    """

    folder: Path
    keep: Sequence[str] = ("solution", "image")

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.keep if kind not in KINDS]
        if unknown or not self.keep:
            raise InputError(f"A run can keep {', '.join(KINDS)}; got {', '.join(map(str, self.keep)) or 'nothing'}.")

    def __call__(self, name: str, solution: Solution) -> dict[str, str]:
        """Write the files of one picture; returns their paths below the run's folder by kind."""
        place = self.folder / RESULTS / name
        place.parent.mkdir(parents=True, exist_ok=True)
        files: dict[str, Path] = {}
        if "solution" in self.keep:
            files["solution"] = solution.save(place.with_name(place.name + ".safetensors"))
        if "image" in self.keep:
            shown = torch.nan_to_num(solution.image)
            files["image"] = images.save(place.with_name(place.name + ".png"), shown)
        if "sheet" in self.keep:
            files["sheet"] = images.save(place.with_name(place.name + "-sheet.png"), solution.sheet())
        return {kind: path.relative_to(self.folder).as_posix() for kind, path in files.items()}

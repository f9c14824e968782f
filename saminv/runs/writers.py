"""What a run keeps of each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import images
from .._errors import InputError, OutputError
from .._files import reason
from ..solution import Solution

KINDS = ("solution", "image", "sheet")
RESULTS, SHEETS = "results", "sheets"


@dataclass(frozen=True)
class SolutionWriter:
    """Writes the solution of each picture, its reconstruction, and the sheet if asked for; each file atomically.

    Attributes:
        folder: Of the run.
        keep: Which of "solution" (results/NAME.safetensors), "image" (results/NAME.png) and "sheet" (sheets/NAME.png).
            Sheets have a folder of their own, so that none can have the name of another picture's image.

    Raises:
        InputError: If ``keep`` names something else or nothing.
    """

    folder: Path
    keep: Sequence[str] = ("solution", "image")

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.keep if kind not in KINDS]
        if unknown or not self.keep:
            raise InputError(f"A run can keep {', '.join(KINDS)}; got {', '.join(map(str, self.keep)) or 'nothing'}.")
        # The order in which they are named makes no other run.
        object.__setattr__(self, "keep", tuple(kind for kind in KINDS if kind in self.keep))

    def __call__(self, name: str, solution: Solution) -> dict[str, str]:
        """Write the files of one picture; returns their paths below the run's folder by kind."""
        files: dict[str, Path] = {}
        if "solution" in self.keep:
            files["solution"] = solution.save(self._place(RESULTS, f"{name}.safetensors"))
        if "image" in self.keep:
            shown = torch.nan_to_num(solution.image)
            files["image"] = images.save(self._place(RESULTS, f"{name}.png"), shown)
        if "sheet" in self.keep:
            files["sheet"] = images.save(self._place(SHEETS, f"{name}.png"), solution.sheet())
        return {kind: path.relative_to(self.folder).as_posix() for kind, path in files.items()}

    def _place(self, kind: str, file: str) -> Path:
        """A file below the run's folder, whose own folder is made."""
        path = self.folder / kind / file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"Cannot make the folder {path.parent}: {reason(error)}.") from error
        return path

"""``saminv invert``: inverts a few pictures."""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .. import images
from .._api import invert
from .._errors import InputError, Status
from .._files import ensure_folder
from .._version import __version__
from ..editing._summary import Row, summarise, table
from ..solution import Solution
from ._console import INTERRUPTED, command, on_terminal, positive
from .options import add_inversion_options, inversion_settings, pasted

OUTPUTS = (".safetensors", ".png", "-sheet.png", "-pasted.png")
PER_IMAGE = ("names", "crops", "segment_names")
"""Parts of a solution's provenance that are no settings."""


def add(commands: Any) -> None:
    """Add the parser of the command."""
    parser = command(
        commands,
        "invert",
        _run,
        "Invert pictures.\n\nFor each picture NAME, writes NAME.png (the reconstruction), NAME-sheet.png and\n"
        "NAME.safetensors (the solution). All pictures are read first: if one cannot be,\nnothing is inverted. For "
        "whole folders there is saminv run.",
    )
    add = parser.add_argument
    add("image", type=Path, nargs="+", metavar="IMAGE", help="picture file")
    add("--out", type=Path, default=Path("saminv-out"), metavar="DIR", help="folder of the results (saminv-out)")
    add("--json", action="store_true", help="print a JSON report and nothing else on the standard output")
    add("--paste-back", action="store_true", help="also write NAME-pasted.png, the result within the whole picture")
    add("--batch", type=positive, default=8, metavar="N", help="pictures inverted together (8)")
    add_inversion_options(parser)


def _run(arguments: argparse.Namespace) -> int:
    folder = ensure_folder(arguments.out)
    stems = _stems(arguments.image, folder)
    check_pictures(arguments.image)
    settings = inversion_settings(arguments, count=len(stems))
    rows: list[Row] = []
    begin, interrupted = time.perf_counter(), False
    for start in range(0, len(stems), arguments.batch):
        part = slice(start, start + arguments.batch)
        chosen = _part(settings, part, len(stems))
        solution = invert(arguments.image[part], **chosen, progress=on_terminal())
        interrupted = Status.INTERRUPTED in solution.statuses
        for index, stem in enumerate(stems[part]):
            solution.provenance["names"][index] = stem
            picture = arguments.image[start + index] if arguments.paste_back else None
            rows.append(_write(solution[index], folder, stem, picture))
        if interrupted:
            break
    if arguments.json:
        seconds = round(time.perf_counter() - begin, 3)
        kept = {key: value for key, value in solution.provenance.items() if key not in PER_IMAGE}
        report = {"saminv": __version__, "seconds": seconds, "interrupted": interrupted, "settings": kept}
        print(json.dumps({**report, "images": rows}, indent=2, allow_nan=False))
    else:
        print(table(rows))
    return INTERRUPTED if interrupted else 0


def _stems(sources: Sequence[Path], folder: Path) -> list[str]:
    """Names of the results without suffix: those of the pictures, made different where results would collide."""
    inputs, taken, stems = {source.resolve() for source in sources}, set[str](), []
    for source in sources:
        stem, count = source.stem, 1
        while taken & {stem + suffix for suffix in OUTPUTS}:
            count += 1
            stem = f"{source.stem}-{count}"
        files = {stem + suffix for suffix in OUTPUTS}
        overwritten = inputs & {(folder / file).resolve() for file in files}
        if overwritten:
            raise InputError(f"The results would overwrite {overwritten.pop()}; choose another folder by --out.")
        taken |= files
        stems.append(stem)
    return stems


def check_pictures(sources: Sequence[Path]) -> None:
    """Read every picture once, so that a bad one is named before any work."""
    with warnings.catch_warnings():
        # The inversion reads them again and says it then.
        warnings.simplefilter("ignore")
        for source in sources:
            images.load(source)


def _part(settings: dict[str, Any], part: slice, count: int) -> dict[str, Any]:
    """The settings for some of the pictures."""
    start = settings["encoder"]
    whole = part.start == 0 and part.stop >= count
    return settings if whole or not isinstance(start, Solution) else {**settings, "encoder": start[part]}


def _write(solution: Solution, folder: Path, stem: str, picture: Path | None) -> Row:
    """Write the files of one image and return its row of the report."""
    files = {"solution": solution.save(folder / f"{stem}.safetensors")}
    shown = torch.nan_to_num(solution.image)
    files["reconstruction"] = images.save(folder / f"{stem}.png", shown)
    files["sheet"] = images.save(folder / f"{stem}-sheet.png", solution.sheet())
    if picture is not None:
        files["pasted"] = images.save(folder / f"{stem}-pasted.png", pasted(picture, shown, solution))
    [row] = summarise(solution.provenance, solution.stats, solution.status)
    return {**row, "files": {kind: str(path) for kind, path in files.items()}}

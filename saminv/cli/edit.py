"""``saminv edit``: renders edits of a solution."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from .. import images
from .._api import edit
from .._errors import InputError
from .._files import ensure_folder
from ..editing.sheet import edit_caption
from ..solution import Solution
from ._console import command
from .options import pasted

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def add(commands: Any) -> None:
    """Add the parser of the command."""
    add = command(
        commands,
        "edit",
        _run,
        "Edit a solution.\n\nWrites one picture for each strength and prints the files' names.",
    ).add_argument
    add("solution", type=Path, metavar="SOLUTION", help="file that invert has written")
    add(
        "--direction",
        required=True,
        metavar="D",
        help="name (see saminv info), class:K, or a .npy, .npz or .safetensors file",
    )
    add("--strength", type=float, nargs="+", default=[1.0], metavar="S", help="multiples of the direction (1)")
    add("--out", type=Path, metavar="PATH", help="file of a single picture, or folder (the folder of SOLUTION)")
    add("--generator", metavar="G", help="name or .safetensors file; the one that the solution names if not given")
    add("--paste-back", type=Path, metavar="PHOTO", help="put the result back into the photograph it came from")


def _run(arguments: argparse.Namespace) -> int:
    solution = Solution.load(arguments.solution, generator=arguments.generator)
    if arguments.paste_back is not None and len(solution) != 1:
        raise InputError(f"--paste-back needs a solution of one image; {arguments.solution} has {len(solution)}.")
    targets = _targets(arguments, solution)
    for strength, files in zip(arguments.strength, targets):
        edited = torch.nan_to_num(edit(solution, arguments.direction, strength))
        for index, file in enumerate(files):
            image = edited[index : index + 1]
            images.save(file, image if arguments.paste_back is None else pasted(arguments.paste_back, image, solution))
            print(file)
    return 0


def _targets(arguments: argparse.Namespace, solution: Solution) -> list[list[Path]]:
    """Files of the edited pictures, a list per strength; their folder is made and checked."""
    out = arguments.solution.parent if arguments.out is None else arguments.out
    if out.suffix.lower() in PICTURES:
        if len(arguments.strength) * len(solution) > 1:
            count = len(arguments.strength) * len(solution)
            raise InputError(f"--out {out} is one file, but there are {count} pictures; name a folder.")
        ensure_folder(out.parent)
        return [[out]]
    folder, stem = ensure_folder(out), arguments.solution.stem
    stems = [stem] if len(solution) == 1 else [f"{stem}-{index}" for index in range(len(solution))]
    captions = ["".join(edit_caption(arguments.direction, strength)) for strength in arguments.strength]
    return [[folder / f"{stem}-{caption}.png" for stem in stems] for caption in captions]

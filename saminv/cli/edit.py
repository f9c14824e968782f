"""``saminv edit``: renders edits of a solution."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import torch

from .. import images
from .._api import edit
from .._errors import InputError
from .._files import ensure_folder
from ..editing._summary import percent
from ..editing.references import caption
from ..editing.strips import FRAMES, draw_frames, draw_strip
from ..solution import Solution
from ._console import command, positive, tell
from .options import add_safe, parse_number, pasted, safe_bounds, strengths

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
STRIP, ENDS = [-2.0, -1.0, 0.0, 1.0, 2.0], [-1.0, 1.0]
"""Strengths of a strip and of an animation where none are given."""
LITTLE = 0.05
"""Part of a picture in its most editable space up to which edits are called weak."""


def add(commands: Any) -> None:
    """Add the parser of the command."""
    parser = command(
        commands,
        "edit",
        _run,
        "Edit a solution.\n\nWrites one picture for each direction and strength and prints the files' names; with "
        "--strip one picture of\nall of them, with --animation the way between the strengths. Several directions are "
        "applied one by one, or\n--together, each with its share: car_hue car_x=-0.5.",
    )
    add = parser.add_argument
    add("solution", type=Path, metavar="SOLUTION", help="file that invert has written")
    add(
        "--direction",
        required=True,
        nargs="+",
        metavar="D",
        help="names (see saminv directions list), class:K, or .npy, .npz, .pt or .safetensors files; D@0-3 acts in "
        "these style slots only",
    )
    add(
        "--strength",
        type=float,
        nargs="+",
        metavar="S",
        help="multiples of the direction (1; of a strip -2 to 2, or -1 to 1 with --safe; of an animation -1 and 1)",
    )
    add("--together", action="store_true", help="apply the directions at once, each by its share D=SHARE (1)")
    add_safe(parser)
    add("--within", nargs="+", metavar="SEGMENT", help="classes or segments to edit; all else stays as it is")
    add("--strip", type=Path, metavar="FILE", help="draw one picture: a row per direction, a column per strength")
    add("--animation", type=Path, metavar="FILE", help="write a .gif, .png or .webp that goes through the strengths")
    add("--frames", type=positive, default=FRAMES, metavar="N", help=f"frames between two strengths ({FRAMES})")
    add("--out", type=Path, metavar="PATH", help="file of a single picture, or folder (the folder of SOLUTION)")
    add("--generator", metavar="G", help="name or .safetensors file; the one that the solution names if not given")
    add("--paste-back", type=Path, metavar="PHOTO", help="put the result back into the photograph it came from")


def _run(arguments: argparse.Namespace) -> int:
    solution = Solution.load(arguments.solution, generator=arguments.generator)
    if arguments.paste_back is not None and len(solution) != 1:
        raise InputError(f"--paste-back needs a solution of one image; {arguments.solution} has {len(solution)}.")
    directions = _directions(arguments)
    _warn_of_weak_edits(solution)
    how = {"safe": safe_bounds(arguments), "within": arguments.within}
    if arguments.strip is not None or arguments.animation is not None:
        return _show(arguments, solution, directions, how)
    chosen = strengths(arguments, [1.0])
    targets = _targets(arguments, solution, [caption(direction) for direction in directions], chosen)
    wanted = [(direction, strength) for direction in directions for strength in chosen]
    for (direction, strength), files in zip(wanted, targets):
        edited = torch.nan_to_num(edit(solution, direction, strength, **how))
        for index, file in enumerate(files):
            image = edited[index : index + 1]
            images.save(file, image if arguments.paste_back is None else pasted(arguments.paste_back, image, solution))
            print(file)
    return 0


def _warn_of_weak_edits(solution: Solution) -> None:
    """Say of which pictures next to nothing is where edits act in full."""
    first = solution.regions.spaces[0]
    names = solution.provenance.get("names") or [f"image{row}" for row in range(len(solution))]
    for name, share in zip(names, solution.regions.share(first).tolist()):
        if share < LITTLE:
            tell(
                f"warning: {percent(share)} of {name} lies in {first}; of the rest only late layers follow an edit, so "
                "it will be weak. A larger tau keeps more there."
            )


def _show(arguments: argparse.Namespace, solution: Solution, directions: list[Any], how: dict[str, Any]) -> int:
    """Write a strip, an animation, or both."""
    if arguments.paste_back is not None or arguments.out is not None:
        raise InputError("--strip and --animation name their own files; leave --out and --paste-back away.")
    if arguments.strip is not None:
        ensure_folder(arguments.strip.parent)
        print(images.save(arguments.strip, draw_strip(solution, directions, strengths(arguments, STRIP), **how)))
    if arguments.animation is not None:
        ensure_folder(arguments.animation.parent)
        frames = draw_frames(solution, directions, strengths(arguments, ENDS), arguments.frames, **how)
        print(images.save_animation(arguments.animation, frames))
    return 0


def _directions(arguments: argparse.Namespace) -> list[Any]:
    """What to apply one by one."""
    if not arguments.together:
        return arguments.direction
    pairs = [(word, 1.0) if "=" not in word or Path(word).exists() else _share(word) for word in arguments.direction]
    if len(dict(pairs)) < len(pairs):
        raise InputError("--together names a direction twice; give it one share.")
    return [dict(pairs)]


def _share(word: str) -> tuple[str, float]:
    try:
        return parse_number(word)
    except argparse.ArgumentTypeError as error:
        raise InputError(f"--direction {word} is no NAME=SHARE, such as car_x=-0.5.") from error


def _targets(
    arguments: argparse.Namespace, solution: Solution, names: list[str], chosen: list[float]
) -> list[list[Path]]:
    """Files of the edited pictures, a list per direction and strength; their folder is made and checked."""
    out = arguments.solution.parent if arguments.out is None else arguments.out
    count = len(names) * len(chosen) * len(solution)
    if out.suffix.lower() in PICTURES:
        if count > 1:
            raise InputError(f"--out {out} is one file, but there are {count} pictures; name a folder.")
        ensure_folder(out.parent)
        return [[out]]
    folder, stem = ensure_folder(out), arguments.solution.stem
    stems = [stem] if len(solution) == 1 else [f"{stem}-{index}" for index in range(len(solution))]
    captions = [f"{name}{strength:+g}" for name in names for strength in chosen]
    # "sefa/3" is no folder.
    plain = [re.sub(r"[^\w.+@=-]", "-", caption) for caption in captions]
    return [[folder / f"{stem}-{caption}.png" for stem in stems] for caption in plain]

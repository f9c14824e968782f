"""``saminv blend`` and ``saminv pair-edit``: what several inversions hold, combined."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .. import images
from .._api import invert
from .._errors import InputError
from .._files import ensure_folder
from ..editing.mix import PairEdit, blend
from ..editing.panels import draw_blend, draw_pair
from ..solution import Solution
from ._console import command, on_terminal
from .invert import check_pictures
from .options import add_inversion_options, inversion_settings

SPACES = ["W+", "P"]


def add(commands: Any) -> None:
    """Add the parsers of both commands."""
    parser = command(
        commands,
        "blend",
        _blend,
        "Blend two pictures.\n\nInverts both into W+ and P, and renders the styles of A with the padding of B. Writes "
        "blend.png, and\nblend-sheet.png with naive style mixing and the ways between both. With --spaces W+ FS it is "
        "the feature\ncode that B gives. A and B may be solutions that saminv invert has written.",
    )
    add = parser.add_argument
    add("codes", type=Path, metavar="A", help="picture, or solution: gives the styles")
    add("structure", type=Path, metavar="B", help="picture, or solution: gives padding, or feature code")
    _add_common(parser, "saminv-blend")

    parser = command(
        commands,
        "pair-edit",
        _pair_edit,
        "Edit pictures as one pair shows.\n\nInverts BEFORE, then AFTER from there, and each PICTURE, into W+ and P. "
        "What differs between the two in\none of the spaces is added to the others. Writes NAME-edited.png and "
        "pair-sheet.png.",
    )
    add = parser.add_argument
    add("before", type=Path, metavar="BEFORE", help="picture before the edit")
    add("after", type=Path, metavar="AFTER", help="the same picture after it")
    add("pictures", type=Path, nargs="+", metavar="PICTURE", help="pictures to edit likewise")
    add("--space", default="auto", metavar="S", help="in which to edit; auto: that with most of the effect")
    add("--strength", type=float, default=1.0, metavar="S", help="multiple of the change (1)")
    _add_common(parser, "saminv-pair-edit")


def _add_common(parser: argparse.ArgumentParser, folder: str) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path(folder), metavar="DIR", help=f"folder of the results ({folder})"
    )
    add_inversion_options(parser, tau=False, allocation=False)
    parser.set_defaults(spaces=SPACES)


def _blend(arguments: argparse.Namespace) -> int:
    folder = ensure_folder(arguments.out)
    settings = inversion_settings(arguments, 1)
    first, second = _solutions([arguments.codes, arguments.structure], settings)
    moved = [name for name in first.latents if name.startswith(("P", "FS"))]
    if not moved:
        raise InputError(
            f"These solutions are in {', '.join(first.latents)}; blending needs padding or a feature code: "
            "--spaces W+ P, or W+ FS."
        )
    images.save(folder / "blend.png", torch.nan_to_num(blend(first, second, moved)))
    images.save(folder / "blend-sheet.png", draw_blend(first, second, moved))
    print(folder / "blend.png", folder / "blend-sheet.png", sep="\n")
    return 0


def _pair_edit(arguments: argparse.Namespace) -> int:
    folder = ensure_folder(arguments.out)
    settings = inversion_settings(arguments, 1)
    check_pictures([arguments.before, arguments.after, *arguments.pictures])
    sizes = [images.load(path).size for path in (arguments.before, arguments.after)]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"{arguments.before} has {sizes[0][1]} x {sizes[0][0]} pixels, {arguments.after} {sizes[1][1]} x "
            f"{sizes[1][0]}; both pictures of a pair need one size."
        )
    [before] = _solutions([arguments.before], settings)
    [after] = _solutions([arguments.after], {**settings, "encoder": before})
    pair = PairEdit(before, after)
    effects = pair.effects()
    chosen = pair.choose() if arguments.space == "auto" else arguments.space
    print("  ".join(f"{name} {value:.2f}" for name, value in effects.items()), f"-> {chosen}")
    others = _solutions(arguments.pictures, settings)
    for path, solution in zip(arguments.pictures, others):
        target = folder / f"{path.stem}-edited.png"
        images.save(target, torch.nan_to_num(pair.apply(solution, chosen, arguments.strength)))
        print(target)
    images.save(folder / "pair-sheet.png", draw_pair(pair, Solution.join(others), arguments.strength))
    print(folder / "pair-sheet.png")
    return 0


def _solutions(paths: Sequence[Path], settings: dict[str, Any]) -> list[Solution]:
    """A solution for each path: of the file, or an inversion of the picture."""
    found = []
    for path in paths:
        if path.suffix == ".safetensors":
            found.append(Solution.load(path, generator=settings["generator"]))
            if len(found[-1]) != 1:
                raise InputError(f"{path} has {len(found[-1])} images; one is needed.")
        else:
            found.append(invert(path, **settings, progress=on_terminal()))
    return found

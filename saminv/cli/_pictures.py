"""Folders of pictures to train on: the options that say which, and reading them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..train import Pictures, prepare_pictures
from ..train.pictures import FITS, MOST_BROKEN
from ._console import on_terminal, positive, tell

MOST_TOLD = 20


def add_pictures(parser: argparse.ArgumentParser) -> Any:
    """Add the options of the pictures; returns their group, for more."""
    group = parser.add_argument_group("pictures")
    add = group.add_argument
    add("--fit", choices=FITS, default="crop", help="how pictures become square: crop, letterbox or auto (crop)")
    add("--limit", type=positive, metavar="N", help="number of pictures")
    usual = f"{MOST_BROKEN:g}"
    add("--most-broken", type=float, default=MOST_BROKEN, metavar="P", help=f"part that may be unreadable ({usual})")
    add("--cache", type=Path, metavar="DIR", help="folder of the decoded pictures (pictures below --out)")
    return group


def read_pictures(arguments: argparse.Namespace, resolution: int) -> Pictures:
    """The pictures that the options name, decoded, with a word on what they are and on what was passed over."""
    pictures = prepare_pictures(
        arguments.images,
        arguments.cache or arguments.out / "pictures",
        resolution,
        fit=arguments.fit,
        limit=arguments.limit,
        most_broken=arguments.most_broken,
        barred=arguments.out,
        progress=on_terminal(),
    )
    print(pictures.describe())
    for why in list(pictures.broken.values())[:MOST_TOLD]:
        tell(f"passed over: {why}")
    return pictures

"""``saminv train-generator``: a StyleGAN2 of one's own, from a folder of pictures."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from .._errors import InputError
from .._open import pick_device
from ..train import DifferentiableAugmentation, GeneratorTraining, train_generator, training_for
from ..train.generator import BEST, TRAINING_PRECISIONS
from ..train.settings import RESOLUTIONS, SCALES
from ._console import command, positive
from ._pictures import add_pictures, read_pictures

CHANGES = ("colour", "translation", "cutout")
FIELDS = {"kimg": "kimg", "batch": "batch", "rate": "learning_rate", "gamma": "gamma", "every": "score_kimg"}
"""Options that are fields of a training under another name or the same."""


def add(commands: Any) -> None:
    """Add the parser of the command."""
    parser = command(
        commands,
        "train-generator",
        _run,
        "Train a StyleGAN2 on pictures.\n\nDecodes the pictures once, trains, and keeps the generator below DIR as\n"
        f"{BEST}, which --generator of the other commands takes. samples/ and curve.png show how it\n"
        "goes. The same command goes on after an interruption; a larger --kimg makes a training longer.",
    )
    add = parser.add_argument
    add("--images", type=Path, nargs="+", required=True, metavar="DIR", help="folders of pictures, and picture files")
    add("--out", type=Path, default=Path("generator"), metavar="DIR", help="folder of the training (generator)")
    sides = ", ".join(map(str, RESOLUTIONS))
    add("--resolution", type=int, default=64, metavar="R", help=f"side in pixels, such as {sides} (64)")
    add = add_pictures(parser).add_argument
    add("--flip", action="store_true", help="show every other picture mirrored; not for text or one-sided things")
    group = parser.add_argument_group("training; what is not given depends on the resolution, see docs/training.md")
    add = group.add_argument
    add("--scale", choices=["auto", *SCALES], default="auto", help="of the networks: small, full; auto by the device")
    add("--channels", type=positive, metavar="C", help="of the last resolution, instead of those of the scale")
    add("--kimg", type=float, metavar="K", help="length, in thousands of images shown")
    add("--batch", type=positive, metavar="B", help="pictures in a step")
    add("--rate", type=float, metavar="RATE", help="learning rate")
    add("--gamma", type=float, metavar="G", help="weight of R1")
    add("--augment", nargs="+", choices=["auto", "none", *CHANGES], default=["auto"], metavar="A", help=_AUGMENT)
    add("--every", type=float, metavar="K", help="thousands of images between scores and sample sheets")
    add("--seed", type=int, default=0, help="of weights, order and noise (0)")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--precision", choices=["auto", *TRAINING_PRECISIONS], default="auto", help="of features (auto)")


_AUGMENT = f"what the discriminator sees changed: {', '.join(CHANGES)}; none; auto: all, for small sets (auto)"


def _run(arguments: argparse.Namespace) -> int:
    device, scale = pick_device(arguments.device), arguments.scale
    if scale == "auto":
        scale = "small" if device.type == "cpu" else "full"
    # A wrong option is told before thousands of pictures are decoded.
    _training(arguments, scale, pictures=1)
    pictures = read_pictures(arguments, arguments.resolution)
    train_generator(
        pictures,
        arguments.out,
        _training(arguments, scale, len(pictures)),
        device=device,
        precision=arguments.precision,
        command=_told(arguments, scale),
    )
    print(arguments.out / BEST)
    return 0


def _training(arguments: argparse.Namespace, scale: str, pictures: int) -> GeneratorTraining:
    given = {field: getattr(arguments, name) for name, field in FIELDS.items()}
    changes: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    asked = arguments.augment
    if asked != ["auto"]:
        changes["augmentation"] = _augmentation(asked)
    return training_for(
        arguments.resolution,
        pictures,
        scale,
        channels=arguments.channels,
        flip=arguments.flip,
        seed=arguments.seed,
        **changes,
    )


def _augmentation(asked: list[str]) -> DifferentiableAugmentation | None:
    if asked == ["none"]:
        return None
    if "none" in asked or "auto" in asked:
        raise InputError(f"--augment takes auto or none alone, or some of {', '.join(CHANGES)}; got {' '.join(asked)}.")
    usual = DifferentiableAugmentation()
    return DifferentiableAugmentation(
        "colour" in asked,
        usual.translation if "translation" in asked else 0.0,
        usual.cutout if "cutout" in asked else 0.0,
    )


def _told(arguments: argparse.Namespace, scale: str) -> str:
    """The command for the generator's card: folders are left out, since a generator is given away."""
    words = ["saminv", "train-generator", "--resolution", arguments.resolution, "--fit", arguments.fit]
    words += ["--scale", scale, "--seed", arguments.seed]
    for name in (*FIELDS, "channels", "limit"):
        value = getattr(arguments, name)
        words += [] if value is None else [f"--{name}", value]
    words += ["--flip"] * arguments.flip + ["--augment", *arguments.augment]
    return shlex.join(map(str, words))

"""``saminv train-encoder``: an encoder for one's generator, from a folder of pictures."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from .._arguments import metric_name
from .._errors import InputError
from .._open import load_generator, pick_device
from ..generators import AbstractGenerator
from ..metrics import METRICS, MultiLayerIdentity, MultiLayerParsing, get_metric
from ..metrics._base import AbstractMetric
from ..segment import PREDICTED_TAU, SEGMENTERS, PredictedInvertibility
from ..train import (
    Discriminator,
    EncoderTraining,
    PredictedRegions,
    encoder_training_for,
    load_discriminator,
    train_encoder,
)
from ..train.discriminators import check_discriminator
from ..train.encoder import BEST
from ..train.encoder_settings import CRITICS, NORMS, PARTS, PRESETS, SCALES
from ..train.generator import TRAINING_PRECISIONS
from ._console import command, positive
from ._pictures import add_pictures, read_pictures

FIELDS = {
    "steps": "steps",
    "batch": "batch",
    "samples": "samples",
    "regression": "regression",
    "rate": "learning_rate",
    "gamma": "gamma",
    "critic": "critic",
    "norms": "norms",
    "validation": "validation",
    "every": "validate_every",
}
"""Options that are fields of a training under another name or the same."""


def add(commands: Any) -> None:
    """Add the parser of the command."""
    parser = command(
        commands,
        "train-encoder",
        _run,
        "Train an encoder for a generator.\n\nDecodes the pictures once, trains, and keeps the encoder below DIR as\n"
        f"{BEST}, which --encoder of the other commands takes. samples/ and validation.jsonl show how\n"
        "it goes. The same command goes on after an interruption.",
    )
    add = parser.add_argument
    add("--images", type=Path, nargs="+", required=True, metavar="DIR", help="folders of pictures, and picture files")
    add("--preset", default="padinv", choices=list(PRESETS), help="what is trained, and how (padinv)")
    add("--generator", default="demo", metavar="G", help="name (see saminv fetch --list) or .safetensors file (demo)")
    add("--out", type=Path, default=Path("encoder"), metavar="DIR", help="folder of the training (encoder)")
    add_pictures(parser)
    _add_training(parser)
    group = parser.add_argument_group("regions, which encoders of --preset sam see")
    add = group.add_argument
    add("--segmenter", default="auto", metavar="S", help="by name (auto)")
    add("--invertibility", type=Path, metavar="FILE", help="invertibility network (the bundled one of the generator)")
    add("--tau", type=float, default=PREDICTED_TAU, help=f"threshold ({PREDICTED_TAU})")


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training; what is not given is that of the preset, see docs/training.md")
    add = group.add_argument
    add("--scale", choices=["auto", *SCALES], default="auto", help="of network and length: small, full (by the device)")
    add("--spaces", nargs="+", metavar="SPACE", help="that --preset sam gives (those of a plain inversion)")
    length = group.add_mutually_exclusive_group()
    length.add_argument("--steps", type=positive, metavar="N", help="length, in steps")
    length.add_argument("--kimg", type=float, metavar="K", help="length, in thousands of images shown")
    add("--batch", type=int, metavar="B", help="pictures in a step")
    add("--samples", type=int, metavar="S", help="samples of the generator in a step")
    add("--regression", type=int, metavar="N", help="first steps, which learn w of samples alone")
    add("--rate", type=float, metavar="RATE", help="learning rate")
    add("--weight", action="append", default=[], metavar="NAME=VALUE", help=f"of a loss: {', '.join(PARTS)}")
    add("--metric", default="auto", metavar="M", help=f"perceptual metric: {', '.join(METRICS)} (auto)")
    add("--identity", type=Path, metavar="FILE", help="network for the loss identity; pictures are faces then")
    add("--parsing", type=Path, metavar="FILE", help="network for the loss parsing; pictures are faces then")
    add(
        "--discriminator",
        type=Path,
        metavar="FILE",
        help="that the loss adversarial begins with: NVIDIA's pickle, rosinality's checkpoint, or a folder of "
        "train-generator or train-encoder (an untrained one)",
    )
    add("--gamma", type=float, metavar="G", help="weight of the discriminator's penalty")
    add("--critic", choices=CRITICS, help="discriminator as in PadInv's paper or code (code)")
    add("--norms", choices=NORMS, help="losses as lengths, as papers write them, or means of squares (code)")
    add("--validation", type=positive, metavar="N", help="pictures held out")
    add("--every", type=positive, metavar="N", help="steps between validations and sample sheets")
    add("--seed", type=int, default=0, help="of weights, order and noise (0)")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--precision", choices=["auto", *TRAINING_PRECISIONS], default="auto", help="of features (auto)")


def _run(arguments: argparse.Namespace) -> int:
    device = pick_device(arguments.device)
    generator = load_generator(arguments.generator, str(device))
    scale = arguments.scale
    if scale == "auto":
        scale = "small" if device.type == "cpu" else "full"
    # A wrong option is told before thousands of pictures are decoded.
    training = _training(arguments, generator, scale)
    faces, regions = _faces(arguments, training), _regions(arguments, generator, training)
    discriminator = _discriminator(arguments, generator, training)
    height, width = generator.image_size
    if height != width:
        raise InputError(
            f"The pictures of {arguments.generator} are {height} x {width} (height, width); encoders are trained for "
            "generators of square pictures."
        )
    pictures = read_pictures(arguments, height)
    train_encoder(
        pictures,
        arguments.out,
        generator,
        training,
        faces=faces,
        regions=regions,
        discriminator=discriminator,
        device=device,
        precision=arguments.precision,
        command=_told(arguments, scale),
    )
    print(arguments.out / BEST)
    return 0


def _training(arguments: argparse.Namespace, generator: AbstractGenerator, scale: str) -> EncoderTraining:
    given = {field: getattr(arguments, name) for name, field in FIELDS.items()}
    changes: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    changes["weights"] = dict(_weight(text) for text in arguments.weight)
    if arguments.spaces:
        if PRESETS[arguments.preset].architecture != "sam":
            raise InputError(f"--spaces are those of --preset sam; {arguments.preset} has spaces of its own.")
        changes["network"] = {"spaces": tuple(arguments.spaces)}
    changes |= {"metric": metric_name(arguments.metric, generator), "seed": arguments.seed}
    faces = arguments.identity is not None or arguments.parsing is not None

    def made() -> EncoderTraining:
        return encoder_training_for(arguments.preset, generator, scale, faces=faces, **changes)

    if arguments.kimg is not None:
        usual = made()
        changes["steps"] = max(1, round(1000 * arguments.kimg / (usual.batch + usual.samples)))
    return made()


def _weight(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError as error:
        raise InputError(f"--weight takes NAME=VALUE, such as l2=1; got {text!r}.") from error


def _faces(arguments: argparse.Namespace, training: EncoderTraining) -> dict[str, AbstractMetric]:
    """Metrics that know faces, from their files.

    Raises:
        InputError: If the training has no loss that one is for.
    """
    found: dict[str, AbstractMetric] = {}
    if arguments.identity is not None:
        # The Feature-Style paper compares five layers of the network, the others its embedding.
        layers = arguments.preset == "feature-style"
        file = arguments.identity
        found["identity"] = MultiLayerIdentity(file) if layers else get_metric("identity", weights=file, crop="ffhq")
    if arguments.parsing is not None:
        found["parsing"] = MultiLayerParsing(arguments.parsing)
    idle = [name for name in found if not training.counts(name)]
    if idle:
        raise InputError(
            f"--{idle[0]} names a network for the loss {idle[0]!r}, which has no weight in --preset {training.preset}. "
            f"Give it one, such as --weight {idle[0]}=0.1, or leave the file out."
        )
    return found


def _discriminator(
    arguments: argparse.Namespace, generator: AbstractGenerator, training: EncoderTraining
) -> Discriminator | None:
    """What the adversarial loss begins with, from its file."""
    if arguments.discriminator is None:
        return None
    found = load_discriminator(arguments.discriminator)
    check_discriminator(found, generator, training)
    return found


def _regions(
    arguments: argparse.Namespace, generator: AbstractGenerator, training: EncoderTraining
) -> PredictedRegions | None:
    """Where the pictures' regions come from, for encoders that see them."""
    if training.architecture != "sam":
        return None
    name = arguments.segmenter
    if name == "auto":
        name = "demo" if training.metric == "demo" else "felzenszwalb"
    spaces = training.network.get("spaces", generator.default_spaces)
    network = None
    if arguments.invertibility is not None:
        network = PredictedInvertibility.for_generator(generator, spaces[:-1], network=arguments.invertibility)
    return PredictedRegions(generator, SEGMENTERS.get(name)(), spaces, network, arguments.tau)


def _told(arguments: argparse.Namespace, scale: str) -> str:
    """The command for the encoder's card: folders are left out, since an encoder is given away."""
    words = ["saminv", "train-encoder", "--preset", arguments.preset, "--fit", arguments.fit, "--scale", scale]
    words += ["--seed", arguments.seed, "--metric", arguments.metric]
    for name in (*FIELDS, "kimg", "limit"):
        value = getattr(arguments, name)
        words += [] if value is None else [f"--{name}", value]
    for text in arguments.weight:
        words += ["--weight", text]
    words += ["--spaces", *arguments.spaces] if arguments.spaces else []
    return shlex.join(map(str, words))

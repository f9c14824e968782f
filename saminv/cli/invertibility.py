"""``saminv invertibility``: measures errors, and trains and judges a network that predicts them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from .._api import invert
from .._arguments import make_recipe
from .._errors import InputError, MissingExtraError, OutputError
from .._files import atomic_write, ensure_folder
from .._recipe import PREDICTED_TAU
from .._version import __version__
from ..regions import Regions
from ..runs.errors import BUILD_STEPS, build_errors
from ..segment.backbones import BACKBONES
from ..segment.network import load_invertibility
from ..train import (
    ErrorMaps,
    InvertibilityTraining,
    TrainerConfig,
    config_for,
    describe_evaluation,
    evaluate_invertibility,
    psnr_lost,
    train_invertibility,
)
from ..train.invertibility import split_checked
from ..train.plots import plot_evaluation
from ._console import INCOMPLETE, command, command_group, on_terminal, positive, tell
from .options import Parser, add_inversion_options, inversion_settings

REPORT, PICTURE = "evaluation.json", "evaluation.png"
MOST_TOLD = 20


def add(commands: Any) -> None:
    """Add the parser of the command."""
    help = "measure errors, train a network that predicts them, and evaluate it"
    description = "Predicted invertibility of a generator of your own: build, train, evaluate."
    steps = command_group(commands, "invertibility", help, description, "step", parser_class=Parser)
    _add_build(steps)
    _add_train(steps)
    _add_evaluate(steps)


def _add_build(commands: Any) -> None:
    parser = command(
        commands,
        "build",
        _build,
        "Measure errors.\n\nInverts each picture into each space alone, and keeps its error maps below DIR. The same\n"
        "command goes on after an interruption; what is there can be trained on at any time.",
    )
    add = parser.add_argument
    add("--images", type=Path, nargs="+", required=True, metavar="IMAGES", help="picture files, and folders")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the data")
    add("--limit", type=positive, metavar="N", help="number of pictures")
    add("--shuffle-seed", type=int, default=0, metavar="SEED", help="of their order (0)")
    add("--batch", type=positive, default=8, metavar="N", help="pictures inverted together (8)")
    add("--workers", type=positive, default=1, metavar="N", help="processes, each with a batch of its own (1)")
    add_inversion_options(parser, tau=False, allocation=False, steps=BUILD_STEPS)


def _build(arguments: argparse.Namespace) -> int:
    settings = {**inversion_settings(arguments), "generator": arguments.generator}
    spaces = settings.pop("spaces")
    reports = build_errors(
        arguments.images,
        arguments.out,
        spaces,
        limit=arguments.limit,
        shuffle_seed=arguments.shuffle_seed,
        batch=arguments.batch,
        workers=arguments.workers,
        progress=on_terminal(),
        **settings,
    )
    failed: dict[str, str] = {}
    for space, report in reports.items():
        print(f"{space}: {report.done} of {report.total} pictures done, {len(report.failed)} passed over")
        failed |= report.failed
    for name, why in list(failed.items())[:MOST_TOLD]:
        tell(f"passed over {name}: {why}")
    return INCOMPLETE if failed else 0


def _add_train(commands: Any) -> None:
    parser = command(
        commands,
        "train",
        _train,
        "Train a network.\n\nTrains on the data that build has measured, and keeps the best weights as\n"
        "best.safetensors below DIR. The same command goes on after an interruption.",
    )
    usual = InvertibilityTraining()
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="folder that build has written")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of checkpoints, logs and the network")
    add("--spaces", nargs="+", metavar="SPACE", help="to predict (all that were measured)")
    add("--backbone", default="small", choices=list(BACKBONES), metavar="B", help=f"{', '.join(BACKBONES)} (small)")
    add("--weights", type=Path, metavar="FILE", help="start the backbone from these weights")
    add("--steps", type=positive, default=usual.schedule.steps, help=f"of the training ({usual.schedule.steps})")
    add("--batch", type=positive, default=usual.batch, help=f"pictures in a step ({usual.batch})")
    add("--rate", type=float, default=usual.schedule.learning_rate, help="learning rate")
    add("--validation-share", type=float, default=usual.validation_share, metavar="S", help="of the pictures")
    add("--seed", type=int, default=0, help="of weights and batches (0)")
    add("--device", default="cpu", help="cpu or cuda")


def _train(arguments: argparse.Namespace) -> int:
    data = ErrorMaps(arguments.data, arguments.spaces)
    print(data.describe())
    every = max(1, min(250, arguments.steps // 10))
    training = InvertibilityTraining(
        schedule=TrainerConfig(
            steps=arguments.steps, learning_rate=arguments.rate, save_every=every, validate_every=every
        ),
        batch=arguments.batch,
        validation_share=arguments.validation_share,
        seed=arguments.seed,
    )
    config = config_for(data, backbone=arguments.backbone)
    start = None if arguments.weights is None else _start_from(arguments.weights)
    train_invertibility(data, arguments.out, config, training, start=start, device=arguments.device)
    print(arguments.out / "best.safetensors")
    return 0


def _start_from(path: Path) -> Callable[[Any], None]:
    def start(network: Any) -> None:
        network.init_from_file(path)

    return start


def _add_evaluate(commands: Any) -> None:
    parser = command(
        commands,
        "evaluate",
        _evaluate,
        "Judge a network.\n\nCompares predictions with measured errors on pictures held out of the training, and\n"
        f"writes {REPORT} and {PICTURE}. With --inversions it also inverts under both allocations, and\nsays what the "
        "prediction costs.",
    )
    add = parser.add_argument
    add("network", type=Path, metavar="NETWORK", help="such as best.safetensors of a training")
    add("--data", type=Path, required=True, metavar="DIR", help="folder that build has written")
    add("--out", type=Path, default=Path("saminv-evaluation"), metavar="DIR", help="folder (saminv-evaluation)")
    add("--generator", default="demo", metavar="G", help="name (see saminv fetch --list) or .safetensors file (demo)")
    add("--segmenter", default="auto", metavar="S", help="as for saminv invert (auto)")
    add("--tau", type=float, default=PREDICTED_TAU, help=f"threshold ({PREDICTED_TAU})")
    add("--validation-share", type=float, default=InvertibilityTraining().validation_share, metavar="S")
    add("--inversions", type=positive, metavar="N", help="pictures to invert under both allocations (none)")
    add("--steps", type=positive, default=300, help="of these inversions (300)")
    add("--device", default="auto", help="auto, cpu or cuda")


def _evaluate(arguments: argparse.Namespace) -> int:
    network = load_invertibility(arguments.network)
    data = ErrorMaps(arguments.data, network.config.spaces)
    if data.fingerprint != network.config.fingerprint:
        raise InputError(
            f"{arguments.network} was trained for another generator than {arguments.data} was measured with."
        )
    _, held = split_checked(data, arguments.validation_share)
    recipe = make_recipe(
        data.spaces,
        generator=arguments.generator,
        segmenter=arguments.segmenter,
        metric=data.metric,
        invertibility="measured",
        device=arguments.device,
    )
    record = evaluate_invertibility(network, held, recipe.segmenter, arguments.tau)
    if arguments.inversions is not None:
        if recipe.generator.fingerprint != data.fingerprint:
            raise InputError(f"{arguments.data} was measured with another generator than {arguments.generator}.")
        record["psnr_lost"] = psnr_lost(
            network, held, recipe.segmenter, arguments.tau, _inverter(arguments, data), count=arguments.inversions
        )
    print(describe_evaluation(record))
    _write(record, arguments.out)
    return 0


def _inverter(arguments: argparse.Namespace, data: ErrorMaps) -> Callable[[Tensor, Regions], float]:
    """What inverts an image `[1, 3, H, W]` under regions and returns its PSNR in dB."""

    def inverted(image: Tensor, regions: Regions) -> float:
        solution = invert(
            image,
            data.spaces,
            generator=arguments.generator,
            metric=data.metric,
            segmenter="none",
            invertibility=regions,
            steps=arguments.steps,
            device=arguments.device,
        )
        return float(solution.stats["psnr"])

    return inverted


def _write(record: dict[str, Any], folder: Path) -> None:
    place = ensure_folder(folder)
    try:
        with atomic_write(place / REPORT) as temporary:
            content = {"saminv": __version__, **record}
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        print(place / REPORT)
        print(plot_evaluation(record, place / PICTURE))
    except MissingExtraError as error:
        tell(f"no {PICTURE}: {error}")
    except ValueError as error:
        raise OutputError(
            f"The evaluation has numbers that are not finite, which no JSON file can hold: {error}"
        ) from error

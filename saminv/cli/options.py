"""Options that several commands share, and what they say as arguments of :func:`saminv.invert`."""

from __future__ import annotations

import argparse
import functools
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import images
from .._arguments import DEFAULT_RATE, DEFAULT_STEPS, SOLVERS, STARTS, metric_name
from .._errors import InputError
from .._open import load_generator
from .._presets import PRESETS
from .._recipe import DEFAULT_TAU, FAR_TAU, PREDICTED_TAU
from ..editing import Bounds
from ..encoders import ENCODERS, AbstractEncoder, encoder_for, is_encoder_file
from ..generators import GENERATORS, AbstractGenerator
from ..metrics import METRICS, AbstractMetric, MultiLayerIdentity, MultiLayerParsing, MultiScale, get_metric
from ..optim.precision import PRECISIONS
from ..optim.slots import GRAPHS
from ..segment import SEGMENTERS, GivenInvertibility, GivenRegions
from ..solution import Solution

FILE_LOSSES = {"identity": MultiLayerIdentity, "parsing": MultiLayerParsing}
"""Losses by networks that are read from files."""
# No word of a command line can hold it.
_JOINT = "\0"


class Parser(argparse.ArgumentParser):
    """A parser that takes ``--tau car=0.4 "*=0.25" IMAGE`` apart: thresholds by class, and then a picture."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        return super().parse_known_args(args if args is None else _join_thresholds(args), namespace)


def _join_thresholds(words: Sequence[str]) -> list[str]:
    """Words with the thresholds by class that follow one another made one word."""
    joined: list[str] = []
    inside = False
    for word in words:
        if inside and _is_threshold(word) and _is_threshold(joined[-1].split(_JOINT)[-1]):
            joined[-1] += _JOINT + word
            continue
        inside = word.startswith("--tau=") or bool(joined and joined[-1] == "--tau")
        joined.append(word)
    return joined


def _is_threshold(word: str) -> bool:
    name, equals, value = word.removeprefix("--tau=").rpartition("=")
    try:
        float(value)
    except ValueError:
        return False
    return bool(name and equals)


def add_inversion_options(
    parser: argparse.ArgumentParser, *, tau: bool = True, allocation: bool = True, steps: int = DEFAULT_STEPS
) -> None:
    """Add the options that say how to invert; :func:`inversion_settings` reads them.

    Args:
        parser: Of a command.
        tau: With the options of the threshold.
        allocation: With those that say which segment goes where.
        steps: The usual number.
    """
    group = parser.add_argument_group("what goes where")
    group.add_argument(
        "--spaces", nargs="+", metavar="SPACE", help="such as W+ F4 F6; the generator's own choice if not given"
    )
    if tau and allocation:
        group.add_argument(
            "--preset", type=str.lower, choices=sorted(PRESETS), help="a published way to invert instead of these"
        )
    if tau:
        _add_threshold(group)
    if allocation:
        _add_allocation(group)
    group.add_argument(
        "--metric",
        default="auto",
        metavar="M",
        help=f"auto, {_known(METRICS, 'psnr', 'ssim', 'ms-ssim', 'identity')}: of the loss and of tau",
    )
    _add_problem(parser.add_argument_group("the inversion"), steps)


def _add_threshold(group: Any) -> None:
    add = group.add_argument
    add(
        "--tau",
        type=parse_tau,
        metavar="TAU",
        help=f"largest error of a more editable space ({PREDICTED_TAU} where errors are predicted, {DEFAULT_TAU} where "
        f"measured, {FAR_TAU} for pictures far from the domain), "
        'auto, or one for each class: car=0.4 "*=0.25"',
    )
    add("--target-psnr", type=float, metavar="DB", help="with --tau auto: PSNR that each picture should have")
    add("--target-lpips", type=float, metavar="L", help="with --tau auto: error by --metric that each should have")


def _add_allocation(group: Any) -> None:
    add = group.add_argument
    add(
        "--segmenter",
        default="auto",
        metavar="S",
        help=f"auto, {_known(SEGMENTERS, 'labels')} or the file of a label image",
    )
    add(
        "--invertibility",
        default="auto",
        metavar="I",
        help="auto, measured, predicted, a trained network (.safetensors), error maps named after spaces (.npz), or a "
        "label image whose values count along --spaces from 0",
    )


def _add_problem(group: Any, steps: int) -> None:
    add = group.add_argument
    add(
        "--generator",
        default="demo",
        metavar="G",
        help="demo, a network of saminv fetch --list, or a .safetensors file",
    )
    add("--label", metavar="L", help="class number, or vector such as 0,0,1, of a conditional generator")
    add(
        "--encoder",
        default="auto",
        metavar="E",
        help=f"start: {', '.join((*STARTS, *ENCODERS))}, the file of an encoder, or a solution file",
    )
    add("--steps", type=int, default=steps, help=f"steps in all; 0 writes the start ({steps})")
    add("--solver", default="auto", choices=SOLVERS, help="method of descent (auto is adam)")
    add("--frozen", nargs="+", default=[], metavar="SPACE", help="spaces that stay where they start")
    add("--rate", type=float, help=f"learning rate ({DEFAULT_RATE}; more for styles alone and in short runs)")
    number = functools.partial(add, type=parse_number, action="append", default=[])
    number("--rate-of", metavar="SPACE=RATE", help="learning rate of one space, or family: P=0.2; may be repeated")
    number("--stop-at", metavar="PART=SIZE", help="of a part of the loss, where a picture is done: perceptual=0.06")
    number("--weight", metavar="PART=WEIGHT", help="of a part of the objective: l2=20; may be repeated")
    add(
        "--loss",
        action="append",
        default=[],
        metavar="LOSS",
        help="a further loss: multi-scale (the perceptual loss at three scales), identity=FILE (ArcFace's "
        "backbone.pth), parsing=FILE (the face parser's 79999_iter.pth), or NAME=METRIC; may be repeated",
    )
    add("--fit", default="auto", choices=("auto", "crop", "letterbox"), help="how pictures of another shape are fitted")
    add("--formulation", default="paper", choices=("paper", "published"), help="of masks and regularisers")
    add("--tap-point", default="layer", choices=("layer", "block"), help="where feature deltas act")
    add("--skip", default="blend", choices=("blend", "published"), help="what an edit freezes")
    add("--noise", default="const", choices=("const", "random", "none"), help="layer noise")
    add("--precision", default="auto", choices=("auto", *PRECISIONS), help="of the features (fp16 on a GPU, else fp32)")
    add("--graph", default="auto", choices=GRAPHS, help="replay the steps as one CUDA graph (auto: on a GPU)")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--seed", type=int, default=0, help="of everything random (0)")


def _known(registry: Any, *without: str) -> str:
    return ", ".join(name for name in registry if name not in without)


def inversion_settings(arguments: argparse.Namespace, count: int | None = None) -> dict[str, Any]:
    """Keyword arguments of :func:`saminv.invert` but for the pictures and the bar.

    Args:
        arguments: With the options of :func:`add_inversion_options`.
        count: Number of pictures of one call; None where pictures are inverted one by one.

    Raises:
        InputError: If an option says nothing usable.
    """
    generator = load_generator(arguments.generator)
    spaces = split_names(arguments.spaces)
    return {
        "spaces": spaces,
        **_allocation(arguments, spaces or generator.default_spaces),
        # A bundled generator is told by its name, which the solution then states.
        "generator": arguments.generator if arguments.generator in GENERATORS else generator,
        "label": _label(arguments.label),
        "metric": arguments.metric,
        "encoder": _encoder(arguments.encoder, generator, count),
        "steps": arguments.steps,
        "solver": arguments.solver,
        "rate": arguments.rate,
        "rates": dict(arguments.rate_of),
        "frozen": tuple(split_names(arguments.frozen) or ()),
        "stop_at": dict(arguments.stop_at),
        "weights": dict(arguments.weight),
        "losses": dict(_loss(text, metric_name(arguments.metric, generator)) for text in arguments.loss),
        "formulation": arguments.formulation,
        "tap_point": arguments.tap_point,
        "skip": arguments.skip,
        "noise": arguments.noise,
        "precision": arguments.precision,
        "graph": arguments.graph,
        "fit_mode": arguments.fit,
        "device": arguments.device,
        "seed": arguments.seed,
    }


def _allocation(arguments: argparse.Namespace, spaces: Sequence[str]) -> dict[str, Any]:
    """What the command's options say of thresholds and of who goes where; nothing if it has no such options."""
    found: dict[str, Any] = {}
    if hasattr(arguments, "preset"):
        found["preset"] = arguments.preset
    if hasattr(arguments, "tau"):
        targets = {name: getattr(arguments, name) for name in ("target_psnr", "target_lpips")}
        found |= {"tau": arguments.tau, **{name: value for name, value in targets.items() if value is not None}}
    if hasattr(arguments, "segmenter"):
        if arguments.segmenter == "labels":
            raise InputError("--segmenter labels needs the label image: name its file instead, for example labels.png.")
        found |= {"segmenter": arguments.segmenter, "invertibility": _invertibility(arguments.invertibility, spaces)}
    return found


def parse_tau(text: str) -> float | str | dict[str, float]:
    """A number, ``auto``, or numbers by class name."""
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        pass
    found: dict[str, float] = {}
    for word in text.split(_JOINT):
        name, _, value = word.rpartition("=")
        if not _is_threshold(word):
            raise argparse.ArgumentTypeError(f"{word!r} is no number, no auto, and no CLASS=NUMBER")
        if name in found:
            raise argparse.ArgumentTypeError(f"{name!r} is named twice")
        found[name] = float(value)
    return found


def parse_number(text: str) -> tuple[str, float]:
    """A name and a finite number, of ``NAME=NUMBER``."""
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not name or not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=NUMBER")
    return name, number


def add_safe(parser: argparse.ArgumentParser) -> None:
    """Add what says how far an edit may go."""
    add = parser.add_argument
    add("--safe", action="store_true", help="strengths are multiples of the largest step that stays likely")
    add(
        "--keep",
        type=parse_number,
        metavar="METRIC=LIMIT",
        help="with --safe: the step also ends where the edited picture compares worse with the unedited one, such as "
        "identity=0.6",
    )


def strengths(arguments: argparse.Namespace, usual: Sequence[float]) -> list[float]:
    """Strengths as given, else the usual ones; of safe steps, those that go no further."""
    largest = max(abs(strength) for strength in usual)
    return arguments.strength or [strength / largest if arguments.safe else strength for strength in usual]


def safe_bounds(arguments: argparse.Namespace) -> bool | Bounds:
    """What the options of :func:`add_safe` say.

    Raises:
        InputError: If a metric is to be kept and strengths are not safe ones.
    """
    if arguments.keep is None:
        return bool(arguments.safe)
    if not arguments.safe:
        raise InputError("--keep says how far a safe step may go; add --safe.")
    name, limit = arguments.keep
    return Bounds(metric=name, limit=limit)


def _loss(text: str, metric: str) -> tuple[str, AbstractMetric]:
    """Name and metric of a further loss; ``metric`` is that of the perceptual loss."""
    name, _, value = text.partition("=")
    if name == "multi-scale" and not value:
        return "perceptual", MultiScale(metric)
    if name in FILE_LOSSES and value:
        return name, FILE_LOSSES[name](value)
    if name and value:
        return name, get_metric(value)
    raise InputError(
        f"--loss {text} is none; it is multi-scale, identity=FILE, parsing=FILE, or NAME=METRIC with a metric of: "
        f"{', '.join(METRICS)}."
    )


def split_names(words: Sequence[str] | None) -> list[str] | None:
    """Names of spaces, separated by blanks or commas."""
    return None if words is None else [name for word in words for name in word.split(",") if name]


def _label(text: str | None) -> int | Tensor | None:
    if text is None:
        return None
    try:
        return torch.tensor([float(part) for part in text.split(",")]) if "," in text else int(text)
    except ValueError as error:
        raise InputError(f"--label is {text!r}; it is a class number, or a vector such as 0,0,1,0.") from error


def _invertibility(text: str, spaces: Sequence[str]) -> str | GivenInvertibility | GivenRegions:
    suffix = Path(text).suffix.lower()
    if text in ("auto", "measured", "predicted") or suffix == ".safetensors":
        return text
    return GivenInvertibility(text) if suffix == ".npz" else GivenRegions(text, spaces)


def _encoder(text: str, generator: AbstractGenerator, count: int | None) -> str | AbstractEncoder | Solution:
    path = Path(text)
    if text in STARTS or not path.suffix:
        return text
    if path.suffix != ".safetensors" or is_encoder_file(path):
        # Opened once, for all pictures.
        return encoder_for(path, generator)
    start = Solution.load(text, generator=generator)
    if count is None and len(start) != 1:
        raise InputError(f"--encoder {text} has {len(start)} images, but every picture starts from it; it needs one.")
    if count is not None and len(start) != count:
        raise InputError(f"--encoder {text} has {len(start)} images, but there are {count} pictures; it needs as many.")
    return start


def pasted(picture: Path, image: Tensor, solution: Solution) -> Tensor:
    """The photograph with an image of its solution in its place.

    Raises:
        InputError: If the solution does not know its crop, or the photograph is another.
    """
    crops = solution.provenance.get("crops")
    if not crops:
        raise InputError("The solution does not say how its picture was cropped, so nothing can be pasted back.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        original = images.load(picture)
    return images.paste_back(original, image.detach().cpu(), images.Crop.from_dict(crops[0]))

"""``saminv directions``: finds directions of a generator, lists and shows them."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import images
from .._errors import InputError
from .._files import ensure_folder
from .._open import load_generator, pick_device
from ..demo.scenes import FACTOR_INDEX, FACTORS
from ..editing import (
    Clip,
    DirectionSet,
    direction_names,
    effects_file,
    ganspace_directions,
    interfacegan_directions,
    kept_names,
    kept_set,
    regression_directions,
    sefa_directions,
    text_directions,
)
from ..editing._summary import align
from ..editing.change import parse_slots
from ..editing.effects import IMAGES
from ..editing.ganspace import COUNT
from ..editing.strips import STRENGTHS, draw_samples, draw_strip
from ..editing.text import MODEL, THRESHOLD, WEIGHTS
from ..generators import GENERATORS, AbstractGenerator
from ..metrics.vision import load_vision
from ..solution import Solution
from ._console import command_group, on_terminal, positive
from .options import add_safe, safe_bounds, split_names, strengths

METHODS = ("sefa", "ganspace", "interfacegan", "regression", "text")
SHOWN = 10
_BY_SCORES = {"interfacegan": interfacegan_directions, "regression": regression_directions}
_OPTIONS = {
    "layers": ("sefa", "ganspace", *_BY_SCORES),
    "samples": ("ganspace", *_BY_SCORES, "text"),
    "write_samples": tuple(_BY_SCORES),
    "count": ("sefa", "ganspace"),
    "whiten": ("sefa",),
    "site": ("ganspace",),
    "scores": tuple(_BY_SCORES),
    "factors": tuple(_BY_SCORES),
    "condition": ("interfacegan",),
    "text": ("text",),
    "threshold": ("text",),
    "effects": ("text",),
    "clip": ("text",),
    "clip_weights": ("text",),
}
"""Options that not all methods have, and the methods that have them."""


def add(commands: Any) -> None:
    """Add the parser of the command and of what it can do."""
    parts = command_group(
        commands,
        "directions",
        "find, list and show directions of a generator",
        "Find directions of a generator, list those that are known, and draw them.",
        "step",
    )
    _add_find(_part(parts, "find", _find, "Find directions and keep them for the generator."))
    parser = _part(parts, "list", _list, "List the directions that are known for a generator.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser = _part(parts, "show", _show, "Draw directions: a row for each of them, a column for each strength.")
    _add_label(parser)
    add = parser.add_argument
    add(
        "direction",
        nargs="*",
        metavar="D",
        help=f"names or files; of a set the first {SHOWN}, and so of all that are known if none is given",
    )
    add("--strength", type=float, nargs="+", metavar="S", help="columns (-3 to 3; with --safe -1 to 1)")
    add("--solution", type=Path, metavar="FILE", help="show them on this solution instead of on random samples")
    add("--samples", type=positive, default=1, help="random samples to show them on (1)")
    add("--seed", type=int, default=0, help="of the samples (0)")
    add_safe(parser)
    add("--out", type=Path, default=Path("directions.png"), metavar="FILE", help="the picture (directions.png)")


def _part(parts: Any, name: str, run: Any, description: str) -> argparse.ArgumentParser:
    parser = parts.add_parser(name, help=description.rstrip(".").lower(), description=description)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument(
        "--generator", default="demo", metavar="G", help=f"{' or '.join(GENERATORS)}, or a .safetensors file"
    )
    parser.set_defaults(run=run)
    return parser


def _add_label(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--label", type=int, metavar="K", help="class of a conditional generator")


def _add_find(parser: argparse.ArgumentParser) -> None:
    _add_label(parser)
    add = parser.add_argument
    add("method", choices=METHODS, metavar="METHOD", help=", ".join(METHODS))
    add("--name", metavar="N", help="of the set (the method's)")
    add("--count", type=positive, metavar="N", help=f"directions of sefa and ganspace ({COUNT})")
    add("--layers", metavar="SLOTS", help="style slots that count and change, such as 0-3,8 (all)")
    add("--whiten", action="store_true", help="sefa: by the effect of steps that are equally likely, not equally long")
    add("--site", metavar="F", help="ganspace: features to analyse, such as F4; w if not given")
    add("--samples", type=positive, metavar="N", help="random samples; of text, those that channels are measured on")
    add("--seed", type=int, default=0, help="of the samples (0)")
    add(
        "--scores",
        type=Path,
        metavar="FILE",
        help="interfacegan, regression: .csv with a column per attribute, .npz with an array per attribute, or .npy "
        "[N, attributes]; row k belongs to sample k of --seed",
    )
    add("--factors", nargs="+", metavar="F", help="the same, of the demo's scenes: factors that its network reads")
    add(
        "--condition",
        nargs="+",
        metavar="A=B,C",
        help="interfacegan: the direction of A leaves B and C alone",
    )
    add("--text", nargs=2, action="append", metavar=("TARGET", "NEUTRAL"), help="text: may be repeated")
    add("--threshold", type=float, metavar="T", help=f"text: least agreement of a channel ({THRESHOLD})")
    add("--effects", type=Path, metavar="FILE", help="text: .npy of channel effects (fs3.npy) instead of measuring")
    add("--clip", metavar="M", help=f"text: model of open_clip ({MODEL})")
    add("--clip-weights", metavar="W", help=f"text: tag of open_clip, or a file ({WEIGHTS})")
    add("--write-samples", type=Path, metavar="DIR", help="only write the pictures of the samples, to label them")
    add("--out", type=Path, metavar="FILE", help="write the set to this .safetensors file instead of keeping it")
    add("--device", default="auto", help="auto, cpu or cuda")


def _find(arguments: argparse.Namespace) -> int:
    _check_options(arguments)
    generator = load_generator(arguments.generator, str(pick_device(arguments.device)))
    if arguments.write_samples is not None:
        return _write_samples(arguments, generator)
    found = _found(arguments, generator)
    if arguments.out is not None and arguments.out.suffix != ".safetensors":
        raise InputError(f"--out {arguments.out} must end in .safetensors.")
    place = found.keep() if arguments.out is None else found.save(arguments.out)
    print(_table(found))
    print(f"\n{place}")
    return 0


def _check_options(arguments: argparse.Namespace) -> None:
    """Refuse what another method would take, which would have no effect."""
    for option, methods in _OPTIONS.items():
        value = getattr(arguments, option)
        if arguments.method not in methods and value is not None and value is not False:
            said = option.replace("_", "-")
            raise InputError(f"--{said} has no effect on {arguments.method}; it is for {' and '.join(methods)}.")


def _found(arguments: argparse.Namespace, generator: AbstractGenerator) -> DirectionSet:
    """The set that the options ask for."""
    common: dict[str, Any] = {"label": arguments.label, "name": arguments.name or arguments.method}
    slots = None if arguments.layers is None else parse_slots(arguments.layers, generator.num_styles)
    count = arguments.count or COUNT
    if arguments.method == "sefa":
        if arguments.name is None and arguments.whiten:
            common["name"] = "sefa-whitened"
        return sefa_directions(generator, count, slots, whiten=arguments.whiten, **common)
    if arguments.method == "text":
        return _by_text(arguments, generator, common)
    if slots is not None:
        common["layers"] = slots
    common |= {"seed": arguments.seed, "progress": on_terminal()}
    if arguments.samples is not None:
        common["samples"] = arguments.samples
    if arguments.method == "ganspace":
        if arguments.name is None and arguments.site:
            common["name"] = f"ganspace-{arguments.site}"
        return ganspace_directions(generator, count, arguments.site, **common)
    scores = _scores(arguments)
    if arguments.scores is not None:
        rows = len(next(iter(scores.values())))
        if arguments.samples not in (None, rows):
            raise InputError(
                f"{arguments.scores} has {rows} rows for {arguments.samples} samples; leave --samples out."
            )
        common["samples"] = rows
    if arguments.method == "interfacegan":
        common["conditions"] = _conditions(arguments.condition or [])
    return _BY_SCORES[arguments.method](generator, scores, **common)


def _by_text(arguments: argparse.Namespace, generator: AbstractGenerator, common: dict[str, Any]) -> DirectionSet:
    if not arguments.text:
        raise InputError('The method text needs texts: --text "a red car" "a car".')
    model = Clip(arguments.clip or MODEL, arguments.clip_weights or WEIGHTS, generator.device)
    measuring: dict[str, Any] = {"images": arguments.samples or IMAGES, "seed": arguments.seed}
    if arguments.effects is None:
        kept = effects_file(generator, model, label=arguments.label, **measuring)
        measuring |= {"cache": kept, "progress": on_terminal()}
    pairs = [(target, neutral) for target, neutral in arguments.text]
    return text_directions(
        generator,
        model,
        pairs,
        threshold=THRESHOLD if arguments.threshold is None else arguments.threshold,
        effects=arguments.effects,
        **common,
        **measuring,
    )


def _write_samples(arguments: argparse.Namespace, generator: AbstractGenerator) -> int:
    from ..editing._samples import pictures, sample_codes

    folder = ensure_folder(arguments.write_samples)
    codes = sample_codes(generator, arguments.samples or 100, arguments.seed, arguments.label)
    index = 0
    for batch in pictures(generator, codes, on_terminal()):
        for image in batch:
            images.save(folder / f"{index:05d}.png", image)
            index += 1
    print(f"wrote {index} pictures to {folder}; row k of --scores belongs to picture k")
    return 0


def _scores(arguments: argparse.Namespace) -> dict[str, Any]:
    """Scores by attribute: arrays from a file, or functions of images."""
    if (arguments.scores is None) == (arguments.factors is None):
        raise InputError(f"The method {arguments.method} needs either --scores FILE or --factors NAMES.")
    if arguments.factors is not None:
        return _factor_readers(split_names(arguments.factors) or [])
    path = arguments.scores
    try:
        if path.suffix == ".csv":
            table = _read_csv(path)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                table = {name: arrays[name] for name in arrays.files}
        else:
            array = np.load(path, allow_pickle=False)
            columns = array[:, None] if array.ndim == 1 else array
            table = {str(k): columns[:, k] for k in range(columns.shape[1])}
        scores = {name: torch.from_numpy(np.asarray(column, dtype=np.float64)) for name, column in table.items()}
    except (OSError, EOFError, ValueError, IndexError, TypeError) as error:
        raise InputError(f"{path} holds no scores: {error}. Give a .csv, .npz or .npy file of numbers.") from error
    if not scores or len({len(column) for column in scores.values()}) != 1:
        raise InputError(f"{path} needs columns of one length; it has {[len(c) for c in scores.values()]}.")
    return scores


def _read_csv(path: Path) -> dict[str, list[float]]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0]) if rows else []
    return {name: [float(row[name]) for row in rows] for name in names}


def _factor_readers(names: list[str]) -> dict[str, Any]:
    unknown = [name for name in names if name not in FACTOR_INDEX]
    if unknown or not names:
        raise InputError(f"--factors {' '.join(unknown)}: the demo's factors are {', '.join(FACTORS)}.")
    network = load_vision()

    def reader(name: str) -> Any:
        return lambda image: network.factors(image.cpu())[:, FACTOR_INDEX[name]]

    return {name: reader(name) for name in names}


def _conditions(words: list[str]) -> dict[str, list[str]]:
    pairs = [word.partition("=") for word in words]
    if any(not name or not others for name, _, others in pairs):
        raise InputError(f"--condition {' '.join(words)} is no A=B,C.")
    return {name: others.split(",") for name, _, others in pairs}


def _table(found: DirectionSet) -> str:
    """A line for each direction with its numbers."""
    lines = [["direction", *found.values, ""]]
    for row, name in enumerate(found.references):
        lines.append([name, *(f"{values[row]:.4g}" for values in found.values.values()), ""])
    return align(lines)


def _list(arguments: argparse.Namespace) -> int:
    generator = load_generator(arguments.generator)
    sets = [kept_set(generator, name) for name in kept_names(generator)]
    kept = {reference for found in sets for reference in found.references}
    bundled = [name for name in direction_names(generator) if name not in kept]
    if arguments.json:
        report = {
            "fingerprint": generator.fingerprint,
            "bundled": bundled,
            "classes": generator.label_dim,
            "sets": [
                {
                    "name": found.name,
                    "method": found.method,
                    "layers": list(found.slots),
                    "directions": found.references,
                    "values": {name: list(values) for name, values in found.values.items()},
                    "settings": dict(found.settings),
                }
                for found in sets
            ],
        }
        print(json.dumps(report, indent=2))
        return 0
    if bundled:
        print(f"bundled: {', '.join(bundled)}")
    if generator.label_dim:
        print(f"to another class: class:0 to class:{generator.label_dim - 1}")
    for found in sets:
        print(f"\n{found.name} ({found.method}, style slots {_spans(found.slots)})\n{_table(found)}")
    if not (bundled or generator.label_dim or sets):
        print("none; saminv directions find sefa finds some")
    return 0


def _spans(slots: tuple[int, ...]) -> str:
    """Style slots as ``0-3,8``."""
    spans: list[list[int]] = []
    for slot in slots:
        if spans and slot == spans[-1][1] + 1:
            spans[-1][1] = slot
        else:
            spans.append([slot, slot])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def _named(words: list[str], generator: AbstractGenerator) -> list[str]:
    """Directions by name; the name of a set stands for its first ones."""
    sets = set(kept_names(generator)) - set(direction_names(generator))
    return [n for word in words for n in (kept_set(generator, word).references[:SHOWN] if word in sets else [word])]


def _show(arguments: argparse.Namespace) -> int:
    generator = load_generator(arguments.generator)
    chosen = _named(arguments.direction, generator) or direction_names(generator)[:SHOWN]
    if not chosen:
        raise InputError("No direction is known for this generator; saminv directions find sefa finds some.")
    columns = strengths(arguments, STRENGTHS)
    how: dict[str, Any] = {"safe": safe_bounds(arguments)}
    if arguments.solution is not None:
        sheet = draw_strip(Solution.load(arguments.solution, generator), chosen, columns, **how)
    else:
        more = {"samples": arguments.samples, "seed": arguments.seed, "label": arguments.label}
        sheet = draw_samples(generator, chosen, columns, **more, **how)
    ensure_folder(arguments.out.parent)
    print(images.save(arguments.out, sheet))
    return 0

"""``saminv bench quality`` and ``saminv bench compare``: how close methods come, and what has changed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from .. import images
from .._arguments import DEFAULT_STEPS, STARTS
from .._errors import InputError, MissingExtraError
from .._files import atomic_write, ensure_folder
from .._presets import PRESETS
from .._version import __version__
from ..bench import compare_quality, measure_quality
from ..bench.compare import LEVEL, TOLERANCE
from ..bench.edits import EDITS
from ..bench.methods import METHODS
from ..bench.protocols import PROTOCOLS
from ..bench.quality import TOGETHER
from ..bench.report import describe_comparison, describe_quality, plot_quality, quality_table
from ..encoders import ENCODERS
from ..metrics import METRICS, SET_METRICS
from ..optim.precision import PRECISIONS
from ._console import FAILED, command, on_terminal, positive, tell


def add(benches: Any) -> None:
    """Add the parsers of both commands."""
    _add_quality(benches)
    _add_compare(benches)


def _add_quality(benches: Any) -> None:
    parser = command(
        benches,
        "quality",
        _quality,
        "Compare methods on pictures.\n\nInverts pictures by each method and scores the results. What was interrupted "
        "goes on where it stopped.\nWrites quality.json, quality.md, quality.csv, quality.png (metrics against "
        "seconds) and\nsheet.png (pictures side by side).",
    )
    add = parser.add_argument
    add("--generator", default="demo", metavar="G", help="name or file (demo)")
    add(
        "--images",
        nargs="+",
        default=["8"],
        metavar="IMAGES",
        help="files and folders, or a number of scenes of the demo world (8)",
    )
    add(
        "--methods",
        nargs="+",
        default=list(METHODS),
        metavar="METHOD",
        help=f"{', '.join(PRESETS)}; spaces such as W+,F6; encoder or the name of one, which takes no step "
        f"({' '.join(METHODS)})",
    )
    add("--steps", type=positive, nargs="+", default=[DEFAULT_STEPS], help=f"several give curves ({DEFAULT_STEPS})")
    add("--metric", default="auto", metavar="M", help="of the loss and of tau (auto)")
    add("--segmenter", default="auto", metavar="S", help="as for saminv invert (auto)")
    starts = ", ".join((*STARTS, *ENCODERS))
    add("--encoder", default="auto", metavar="E", help=f"where methods start: {starts}, or a file (auto)")
    add("--metrics", nargs="+", metavar="M", help=f"{', '.join([*METRICS, *SET_METRICS])} (those that suit)")
    add(
        "--edits",
        nargs="*",
        metavar="E",
        help=f"measure edits too: {', '.join(EDITS)}; all that can be if none is named. consistency inverts each "
        "picture once more",
    )
    add(
        "--external",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="pictures that another program has made of the same images; may be repeated",
    )
    _add_protocol(parser)
    add("--batch", type=positive, default=TOGETHER, metavar="N", help=f"pictures inverted together ({TOGETHER})")
    add("--workers", type=positive, default=1, metavar="N", help="processes, each with a batch of its own (1)")
    add("--shown", type=positive, default=4, metavar="N", help="pictures on the sheet (4)")
    add("--precision", default="auto", choices=("auto", *PRECISIONS), help="of the features (fp16 on a GPU, else fp32)")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--seed", type=int, default=0, help="of everything random (0)")
    add("--out", type=Path, default=Path("saminv-bench"), metavar="DIR", help="folder of the results (saminv-bench)")
    add("--json", type=Path, metavar="FILE", help="the JSON report (DIR/quality.json)")


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("as in a paper")
    add = group.add_argument
    add(
        "--like",
        type=str.lower,
        choices=tuple(PROTOCOLS),
        help="metrics, sizes and choice of pictures of the SAM report, the Feature-Style paper, PadInv, or "
        "StyleFeatureEditor; the table says what the paper leaves unsaid",
    )
    add("--train-list", metavar="LIST", help="what was trained on: a folder, or a text file of paths or sha256sums")
    add("--test-list", metavar="LIST", help="what is tested on; the images if not given. Both must not overlap")
    add("--same-names", action="store_true", help="both lists may have files of one name that show different pictures")


def _quality(arguments: argparse.Namespace) -> int:
    folder, given = ensure_folder(arguments.out), arguments.images
    report = measure_quality(
        int(given[0]) if len(given) == 1 and given[0].isdigit() and not Path(given[0]).exists() else given,
        arguments.methods,
        folder,
        generator=arguments.generator,
        steps=arguments.steps,
        metrics=arguments.metrics,
        edits=() if arguments.edits is None else arguments.edits or None,
        encoder=arguments.encoder,
        like=arguments.like,
        train_list=arguments.train_list,
        test_list=arguments.test_list,
        same_names=arguments.same_names,
        external=dict(map(_external, arguments.external)),
        batch=arguments.batch,
        workers=arguments.workers,
        shown=arguments.shown,
        progress=on_terminal(),
        metric=arguments.metric,
        segmenter=arguments.segmenter,
        precision=arguments.precision,
        device=arguments.device,
        seed=arguments.seed,
    )
    found = {"saminv": __version__, "torch": torch.__version__, **report.to_dict()}
    text = describe_quality(report)
    files = {
        arguments.json or folder / "quality.json": json.dumps(found, indent=2),
        folder / "quality.md": text,
        folder / "quality.csv": quality_table(report).rstrip("\n"),
    }
    for path, content in files.items():
        _write(path, content)
    written = list(files)
    if report.sheet is not None:
        written.append(images.save(folder / "sheet.png", report.sheet))
    try:
        written.append(plot_quality(report, folder / "quality.png"))
    except MissingExtraError as error:
        tell(f"no quality.png: {error}")
    print(text, "", *written, sep="\n")
    return 0


def _external(text: str) -> tuple[str, str]:
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise InputError(f"--external {text} is none; it is NAME=DIR, the folder of another program's pictures.")
    return name, folder


def _add_compare(benches: Any) -> None:
    parser = command(
        benches,
        "compare",
        _compare,
        "Tell what changed between two reports of saminv bench quality.\n\nFigures are compared picture by picture "
        "where both reports have them, else by pooled standard\nerrors; what moves no more than chance allows has not "
        "changed. The exit code is 1 if something got\nworse. Pictures, steps and generator must be the same.",
    )
    add = parser.add_argument
    add("before", type=Path, metavar="A.json", help="the report before")
    add("after", type=Path, metavar="B.json", help="the report after")
    add("--level", type=float, default=LEVEL, metavar="P", help=f"how often chance may call a figure changed ({LEVEL})")
    add(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        metavar="X",
        help=f"change relative to the figure that does not count ({TOLERANCE})",
    )
    add("--json", type=Path, metavar="FILE", help="write the comparison as JSON too")


def _compare(arguments: argparse.Namespace) -> int:
    found = compare_quality(arguments.before, arguments.after, arguments.level, arguments.tolerance)
    if arguments.json is not None:
        _write(arguments.json, json.dumps(found.to_dict(), indent=2))
    print(describe_comparison(found))
    return FAILED if found.worse else 0


def _write(path: Path, content: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(content + "\n", encoding="utf-8")

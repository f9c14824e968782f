"""``saminv run``: inverts folders of pictures, and goes on where it stopped."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from .._errors import SaminvError
from .._version import __version__
from ..runs import RunReport, progress_of, run
from ..runs.writers import KINDS
from ._console import INCOMPLETE, INTERRUPTED, command, fail, on_terminal, positive, tell
from .options import add_inversion_options, inversion_settings

MOST_TOLD = 20
"""Pictures passed over that are named one by one."""
_EXIT_CODES = """exit codes:
  0    done
  1    something failed: the output place, memory, a worker, missing weights or packages
  2    bad input: a wrong option, no pictures, a folder that holds a run with other settings or that is in use
  3    done, but some pictures were passed over; they are listed with the reason
  130  interrupted by Ctrl-C or SIGTERM; the same command goes on where this one stopped
"""


def add(commands: Any) -> None:
    """Add the parser of the command."""
    parser = command(
        commands,
        "run",
        _run,
        "Invert folders of pictures.\n\nFor each picture NAME, writes results/NAME.safetensors (the solution) and "
        "results/NAME.png\n(the reconstruction) below DIR, and a line of manifest.jsonl. The same command goes on\n"
        "after an interruption; pictures that are done are not done again unless their file\nchanged. A picture that "
        "cannot be read is passed over.",
        _EXIT_CODES,
    )
    add = parser.add_argument
    add("images", type=Path, nargs="+", metavar="IMAGES", help="picture files, and folders with all folders below them")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    add("--limit", type=positive, metavar="N", help="take the first N pictures only")
    add(
        "--shuffle-seed", type=int, metavar="SEED", help="take them in a random order, so that --limit is a fair sample"
    )
    add("--batch", type=positive, default=8, metavar="N", help="pictures inverted together (8)")
    add("--workers", type=positive, default=1, metavar="N", help="processes, each with a batch of its own (1)")
    add(
        "--sequence",
        action="store_true",
        help="start each picture from the solution of the one before, as for frames of a film; one at a time",
    )
    add("--retry", action="store_true", help="try those that were passed over before once more")
    add(
        "--keep",
        nargs="+",
        choices=KINDS,
        default=["solution", "image"],
        metavar="KIND",
        help=f"what to write of each picture: {', '.join(KINDS)} (solution image)",
    )
    add("--json", action="store_true", help="print a JSON report and nothing else on the standard output")
    add_inversion_options(parser)


def _run(arguments: argparse.Namespace) -> int:
    # The generator's name or file instead of an opened one: further processes open it themselves.
    settings = {**inversion_settings(arguments), "generator": arguments.generator}
    which: dict[str, Any] = {"limit": arguments.limit, "shuffle_seed": arguments.shuffle_seed}
    try:
        report = run(
            arguments.images,
            arguments.out,
            **settings,
            **which,
            batch=arguments.batch,
            workers=arguments.workers,
            sequence=arguments.sequence,
            retry=arguments.retry,
            keep=arguments.keep,
            progress=on_terminal(),
        )
    except KeyboardInterrupt:
        return _interrupted(arguments, which)
    print(_as_json(report) if arguments.json else _as_text(report))
    _tell_of_failed(report)
    return INCOMPLETE if report.failed else 0


def _interrupted(arguments: argparse.Namespace, which: dict[str, Any]) -> int:
    """Tell how far the run has come."""
    try:
        report = progress_of(arguments.images, arguments.out, **which)
    except SaminvError:
        # It had not begun yet.
        return fail("interrupted", INTERRUPTED)
    if arguments.json:
        print(_as_json(report, interrupted=True))
    ended = report.done + len(report.failed)
    return fail(f"interrupted; {ended} of {_pictures(report.total)} have ended, the same command goes on", INTERRUPTED)


def _as_text(report: RunReport) -> str:
    """What a run has come to, and the command that looks at it."""
    lines = [f"{report.done} of {_pictures(report.total)} done, {len(report.failed)} passed over."]
    if report.fresh:
        lines[0] += f" This call: {_pictures(report.fresh)}, {60 * report.fresh / report.seconds:.1f} per minute."
    if report.psnr is not None:
        lines.append(f"Median PSNR {report.psnr:.2f} dB.")
    return "\n".join([*lines, f"saminv summarise {shlex.quote(str(report.folder))}"])


def _pictures(count: int) -> str:
    return f"{count} picture{'s' if count != 1 else ''}"


def _as_json(report: RunReport, interrupted: bool = False) -> str:
    found = {
        "saminv": __version__,
        "folder": str(report.folder),
        "interrupted": interrupted,
        "total": report.total,
        "done": report.done,
        "failed": report.failed,
        "fresh": None if interrupted else report.fresh,
        "seconds": None if interrupted else round(report.seconds, 3),
        "images_per_minute": round(60 * report.fresh / report.seconds, 3) if report.fresh else None,
        "median_psnr": report.psnr,
    }
    return json.dumps(found, indent=2, allow_nan=False)


def _tell_of_failed(report: RunReport) -> None:
    for name, why in list(report.failed.items())[:MOST_TOLD]:
        tell(f"passed over {name}: {why}")
    more = len(report.failed) - MOST_TOLD
    if more > 0:
        tell(f"passed over {more} more; saminv summarise {shlex.quote(str(report.folder))} lists all of them")

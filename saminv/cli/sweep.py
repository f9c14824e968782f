"""``saminv sweep``: inverts pictures over a range of τ, and draws the distortion-editability curve."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .._api import sweep
from .._search import TAUS
from .._version import __version__
from ..runs.sweeps import describe_curve, save_sweep
from ._console import command, on_terminal, tell
from .invert import check_pictures
from .options import add_inversion_options, inversion_settings


def add(commands: Any) -> None:
    """Add the parser of the command."""
    parser = command(
        commands,
        "sweep",
        _run,
        "Sweep tau.\n\nInverts pictures at each of several thresholds; masks that repeat are solved once. Writes\n"
        "curve.json, curve.png, and for each picture NAME-sweep.png with a row for each of its\nallocations.",
    )
    add = parser.add_argument
    add("image", type=Path, nargs="+", metavar="IMAGE", help="picture file")
    add("--taus", type=float, nargs="+", default=list(TAUS), metavar="T", help="thresholds (0.1 to 0.4, and 1)")
    add("--out", type=Path, default=Path("saminv-sweep"), metavar="DIR", help="folder of the results (saminv-sweep)")
    add("--keep-solutions", action="store_true", help="also write NAME-tau-T.safetensors for each allocation")
    add("--json", action="store_true", help="print a JSON report and nothing else on the standard output")
    add_inversion_options(parser, tau=False)


def _run(arguments: argparse.Namespace) -> int:
    settings = inversion_settings(arguments, len(arguments.image))
    check_pictures(arguments.image)
    found = sweep(arguments.image, arguments.taus, progress=on_terminal(), **settings)
    report = save_sweep(found, arguments.out, solutions=arguments.keep_solutions)
    if report["note"]:
        tell(f"no curve.png: {report['note']}")
    if arguments.json:
        print(json.dumps({"saminv": __version__, **report}, indent=2, allow_nan=False))
    else:
        print(describe_curve(report))
        print("\n" + "\n".join([str(arguments.out / "curve.json"), *report["files"].get("curve", [])]))
        print("\n".join(report["files"]["sheets"]))
    return 0

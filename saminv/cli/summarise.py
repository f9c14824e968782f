"""``saminv summarise``: tables, histograms and a gallery of a run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .._errors import MissingExtraError
from .._files import ensure_folder
from .._version import __version__
from ..runs.gallery import write_gallery
from ..runs.summary import RANKED, Summary, describe_run, plot_histograms, summarise_run
from ._console import command, positive, tell

HISTOGRAMS = "histograms.png"


def add(commands: Any) -> None:
    """Add the parser of the command."""
    add = command(
        commands,
        "summarise",
        _run,
        "Summarise a run.\n\nPrints distributions and what was passed over, and writes histograms.png, and\n"
        "gallery.html with the worst, median and best pictures, also while the run goes on.\nThe generator is not "
        "needed.",
    ).add_argument
    add("folder", type=Path, metavar="DIR", help="folder of the run")
    add("--out", type=Path, metavar="DIR", help="where to write (the folder of the run)")
    add("--by", choices=RANKED, default="psnr", metavar="NUMBER", help=f"what is good: {', '.join(RANKED)} (psnr)")
    add("--count", type=positive, default=6, metavar="N", help="pictures of each kind in the gallery (6)")
    add("--json", action="store_true", help="print a JSON report and nothing else on the standard output")


def _run(arguments: argparse.Namespace) -> int:
    summary = summarise_run(arguments.folder)
    out = ensure_folder(arguments.folder if arguments.out is None else arguments.out)
    files = {"gallery": write_gallery(summary, out, by=arguments.by, count=arguments.count)}
    if summary.records:
        try:
            files["histograms"] = plot_histograms(summary, out / HISTOGRAMS)
        except MissingExtraError as error:
            tell(f"no histograms: {error}")
    if arguments.json:
        print(json.dumps(_report(summary, files), indent=2, allow_nan=False))
    else:
        print(describe_run(summary))
        print("\n" + "\n".join(map(str, files.values())))
    return 0


def _report(summary: Summary, files: dict[str, Path]) -> dict[str, Any]:
    return {
        "saminv": __version__,
        "folder": str(summary.folder),
        "done": len(summary.records),
        "statuses": dict(summary.statuses),
        "metric": summary.metric,
        "distributions": summary.distributions,
        "failed": dict(summary.failed),
        "notes": dict(summary.notes),
        "settings": dict(summary.settings),
        "files": {kind: str(path) for kind, path in files.items()},
    }

"""``saminv bench``: what a step costs on this machine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from .._errors import InputError, MissingExtraError
from .._files import atomic_write, ensure_folder
from .._version import __version__
from ..bench import Workload, measure_speed
from ..bench.report import describe_speed, plot_speed
from ._console import command, command_group, on_terminal, positive, tell
from .options import split_names

COMPARED = ("plain", "compiled", "none")


def add(commands: Any) -> None:
    """Add the parsers of the command."""
    benches = command_group(commands, "bench", "measure speed", "Benchmarks of this machine.", "bench")
    parser = command(
        benches,
        "speed",
        _speed,
        "Time a step.\n\nTimes the steps of an inversion with a StyleGAN2 of full size and LPIPS, both with random "
        "weights, beside\nother formulations of the same step (plain: the usual one; compiled: ours by torch.compile), "
        "and beside what\nthe machine can do. Writes speed.json and speed.png.",
    )
    add = parser.add_argument
    add("--resolution", type=positive, nargs="+", default=[256], metavar="N", help="the first is compared (256)")
    add("--batch", type=positive, nargs="+", default=[1], metavar="B", help="the first is compared (1)")
    add("--spaces", nargs="+", default=["W+"], metavar="SPACE", help="such as W+ F6 (W+)")
    add("--steps", type=positive, default=5, help="timed in each process (5)")
    add("--threads", type=positive, help="of the CPU; torch's own choice if not given")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--channels", type=positive, default=512, help="at most, in the generator (512)")
    add("--net", default="vgg", choices=("vgg", "alex", "squeeze"), help="of LPIPS (vgg)")
    add("--compare", nargs="+", default=["plain"], choices=COMPARED, help="with which other formulations (plain)")
    add("--out", type=Path, default=Path("saminv-bench"), metavar="DIR", help="folder of the results (saminv-bench)")
    add("--json", action="store_true", help="print a JSON report and nothing else on the standard output")


def _speed(arguments: argparse.Namespace) -> int:
    folder = ensure_folder(arguments.out)
    workload = Workload(
        resolution=arguments.resolution[0],
        batch=arguments.batch[0],
        spaces=tuple(split_names(arguments.spaces) or ()),
        device=_device(arguments.device),
        channel_base=64 * arguments.channels,
        channel_max=arguments.channels,
        net=arguments.net,
    )
    report = measure_speed(
        workload,
        steps=arguments.steps,
        threads=arguments.threads,
        compare=[name for name in arguments.compare if name != "none"],
        batches=arguments.batch[1:],
        resolutions=arguments.resolution[1:],
        progress=on_terminal(),
    )
    found = {"saminv": __version__, "torch": torch.__version__, **report.to_dict()}
    with atomic_write(folder / "speed.json") as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    files = [folder / "speed.json"]
    try:
        files.append(plot_speed(report, folder / "speed.png"))
    except MissingExtraError as error:
        tell(f"no speed.png: {error}")
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        print(describe_speed(report), "", *files, sep="\n")
    return 0


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if torch.device(name).type == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda, but torch sees no CUDA device here; use cpu.")
    return name

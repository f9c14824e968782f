"""``saminv bench``: what a step and an inversion cost on this machine."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .._errors import InputError, MissingExtraError
from .._files import atomic_write, ensure_folder
from .._version import __version__
from ..bench import Workload, measure_against, measure_kernels, measure_speed, measure_target
from ..bench.families import FAMILIES
from ..bench.kernels import KERNELS, TOLERANCE
from ..bench.report import (
    describe_against,
    describe_kernels,
    describe_speed,
    describe_target,
    plot_descents,
    plot_speed,
)
from ..bench.target import LEVELS, SOLVERS
from ..optim.precision import PRECISIONS
from ..optim.slots import GRAPHS
from . import quality
from ._console import FAILED, command, command_group, on_terminal, positive, tell
from .options import split_names

COMPARED = ("plain", "compiled", "none")


def add(commands: Any) -> None:
    """Add the parsers of the commands."""
    benches = command_group(commands, "bench", "measure speed and quality", "Benchmarks.", "bench")
    _add_speed(benches)
    _add_target(benches)
    _add_kernels(benches)
    _add_against(benches)
    quality.add(benches)


def _add_speed(benches: Any) -> None:
    parser = command(
        benches,
        "speed",
        _speed,
        "Time a step.\n\nTimes the steps of an inversion with a StyleGAN2 of full size and LPIPS, both with random "
        "weights, beside\nother formulations of the same step (plain: the usual one; compiled: ours by torch.compile), "
        "and beside what\nthe machine can do. Writes speed.json and speed.png.",
    )
    add = parser.add_argument
    add("--generator", default="random", help="random for random weights, demo, or a .safetensors file (random)")
    add("--resolution", type=positive, nargs="+", default=[256], metavar="N", help="the first is compared (256)")
    add("--batch", type=positive, nargs="+", default=[1], metavar="B", help="the first is compared (1)")
    add("--steps", type=positive, default=5, help="timed in each process (5)")
    add("--compare", nargs="+", default=["plain"], choices=COMPARED, help="with which other formulations (plain)")
    _add_workload(parser)


def _add_target(benches: Any) -> None:
    parser = command(
        benches,
        "target",
        _target,
        "Time solvers to a known target.\n\nThe generator renders a target from styles of its own, and each solver "
        "looks for them from the mean w, under the\nsame loss. Tells after how many seconds and steps a PSNR was "
        "reached. Writes target.json and target.png.",
    )
    add = parser.add_argument
    add("--generator", default="demo", help="demo, a .safetensors file, or random for random weights (demo)")
    add("--resolution", type=positive, default=256, metavar="N", help="of random weights (256)")
    add("--batch", type=positive, default=1, metavar="B", help="targets at a time (1)")
    add("--solvers", nargs="+", default=list(SOLVERS), choices=tuple(SOLVERS), help="who takes part (all)")
    _add_descent(parser)
    _add_workload(parser)


def _add_kernels(benches: Any) -> None:
    parser = command(
        benches,
        "kernels",
        _kernels,
        "Time the kernels.\n\nMeasures which share of the bandwidth of a copy each Triton kernel achieves, forward and "
        "backward, beside its\nreference and torch.compile of that. Needs a CUDA device. Writes kernels.json.",
    )
    add = parser.add_argument
    add("--kernels", nargs="+", default=list(KERNELS), metavar="NAME", help=f"which: {'; '.join(KERNELS)} (all)")
    add("--dtypes", nargs="+", default=list(TOLERANCE), choices=tuple(TOLERANCE), help="of the numbers (all)")
    add("--interpret", action="store_true", help="run them on the CPU at tiny sizes; compares and times nothing")
    _add_output(parser)


def _add_against(benches: Any) -> None:
    parser = command(
        benches,
        "against",
        _against,
        "Run a published code beside ours.\n\nRUNS THE CODE IN THIS FOLDER, in processes of its own but with your "
        "rights: name only code that you trust.\nIts generator and ours get the same random weights. If image and "
        "gradients agree, tells what a step costs, each in\nits own formulation, and how soon each comes near a common "
        "target under a common loss. If they differ, tells by\nhow much and no speed (exit code 1). Writes "
        "against.json and against.png.",
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="of the published code; runs the code in this folder")
    add("--family", choices=tuple(FAMILIES), help="what it is; found out if not given")
    add("--resolution", type=positive, default=256, metavar="N", help="of the generators (256)")
    add("--batch", type=positive, default=1, metavar="B", help="images (1)")
    add("--count", type=positive, default=20, metavar="N", help="steps timed in each process (20)")
    add("--solvers", nargs="+", default=["adam"], choices=tuple(SOLVERS), help="of ours, on the way to a target (adam)")
    add("--timeout", type=positive, default=1800, metavar="S", help="seconds for each of its processes (1800)")
    _add_descent(parser)
    _add_workload(parser, spaces=False)


def _add_descent(parser: argparse.ArgumentParser) -> None:
    """Add the options of a descent to a target."""
    add = parser.add_argument
    add("--steps", type=positive, default=200, help="of each run (200)")
    add("--every", type=positive, default=5, metavar="N", help="steps between two looks (5)")
    levels = " ".join(f"{level:g}" for level in LEVELS)
    add("--psnr", type=float, nargs="+", default=LEVELS, metavar="DB", help=f"levels to reach, in dB ({levels})")


def _add_workload(parser: argparse.ArgumentParser, spaces: bool = True) -> None:
    """Add the options of what is computed, with those of the spaces or in W+ alone."""
    add = parser.add_argument
    if spaces:
        add("--spaces", nargs="+", default=["W+"], metavar="SPACE", help="such as W+ F6 (W+)")
    else:
        parser.set_defaults(spaces=["W+"])
    add("--channels", type=positive, default=512, help="at most, in a generator with random weights (512)")
    add("--net", default="vgg", choices=("vgg", "alex", "squeeze"), help="of LPIPS (vgg)")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--precision", default="auto", choices=("auto", *PRECISIONS), help="of our steps (fp16 on a GPU, else fp32)")
    add("--graph", default="auto", choices=GRAPHS, help="replay our steps as one CUDA graph (auto: on a GPU)")
    _add_output(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--threads", type=positive, help="of the CPU; torch's own choice if not given")
    add("--out", type=Path, default=Path("saminv-bench"), metavar="DIR", help="folder of the results (saminv-bench)")
    add("--json", action="store_true", help="print a JSON report and nothing else on the standard output")


def _speed(arguments: argparse.Namespace) -> int:
    folder = ensure_folder(arguments.out)
    report = measure_speed(
        _workload(arguments, arguments.resolution[0], arguments.batch[0], generator=arguments.generator),
        steps=arguments.steps,
        threads=arguments.threads,
        compare=[name for name in arguments.compare if name != "none"],
        batches=arguments.batch[1:],
        resolutions=arguments.resolution[1:],
        progress=on_terminal(),
    )
    return _finish(arguments, folder / "speed", report, describe_speed, functools.partial(plot_speed, report))


def _target(arguments: argparse.Namespace) -> int:
    folder = ensure_folder(arguments.out)
    report = measure_target(
        _workload(arguments, arguments.resolution, arguments.batch, generator=arguments.generator),
        solvers=arguments.solvers,
        steps=arguments.steps,
        every=arguments.every,
        levels=arguments.psnr,
        threads=arguments.threads,
        progress=on_terminal(),
    )
    plot = functools.partial(plot_descents, report.tracks, report.levels)
    return _finish(arguments, folder / "target", report, describe_target, plot)


def _kernels(arguments: argparse.Namespace) -> int:
    folder = ensure_folder(arguments.out)
    report = measure_kernels(
        arguments.kernels,
        arguments.dtypes,
        interpret=arguments.interpret,
        threads=arguments.threads,
        progress=on_terminal(),
    )
    return _finish(arguments, folder / "kernels", report, describe_kernels)


def _against(arguments: argparse.Namespace) -> int:
    folder = ensure_folder(arguments.out)
    report = measure_against(
        arguments.folder,
        _workload(arguments, arguments.resolution, arguments.batch),
        family=arguments.family,
        count=arguments.count,
        solvers=arguments.solvers,
        steps=arguments.steps,
        every=arguments.every,
        levels=arguments.psnr,
        threads=arguments.threads,
        timeout=arguments.timeout,
        progress=on_terminal(),
    )
    if not report.passed:
        _finish(arguments, folder / "against", report, describe_against)
        return FAILED
    plot = functools.partial(plot_descents, report.tracks, report.levels)
    return _finish(arguments, folder / "against", report, describe_against, plot)


def _workload(arguments: argparse.Namespace, resolution: int, batch: int, **more: Any) -> Workload:
    return Workload(
        resolution=resolution,
        batch=batch,
        spaces=tuple(split_names(arguments.spaces) or ()),
        device=_device(arguments.device),
        channel_base=64 * arguments.channels,
        channel_max=arguments.channels,
        net=arguments.net,
        precision=arguments.precision,
        graph=arguments.graph,
        **more,
    )


def _finish(
    arguments: argparse.Namespace,
    path: Path,
    report: Any,
    describe: Callable[[Any], str],
    plot: Callable[[Path], Path] | None = None,
) -> int:
    """Write a report beside its picture, and print it."""
    found = {"saminv": __version__, "torch": torch.__version__, **report.to_dict()}
    files = [path.with_suffix(".json")]
    with atomic_write(files[0]) as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    try:
        files += [plot(path.with_suffix(".png"))] if plot else []
    except MissingExtraError as error:
        tell(f"no {path.name}.png: {error}")
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        print(describe(report), "", *files, sep="\n")
    return 0


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if torch.device(name).type == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda, but torch sees no CUDA device here; use cpu.")
    return name

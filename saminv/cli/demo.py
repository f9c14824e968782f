"""``saminv demo``: one scene, inverted three ways and edited."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .._api import invert
from .._arguments import DEFAULT_STEPS
from ..demo.report import SEED, run_demo
from ._console import INTERRUPTED, command, on_terminal


def add(commands: Any) -> None:
    """Add the parser of the command."""
    add = command(
        commands,
        "demo",
        _run,
        "Invert and edit a scene.\n\nWrites scene.png, sheet.png, solution.safetensors and report.json: one scene\n"
        "inverted by SAM, in W+ and in F10, with the same edits of each.",
    ).add_argument
    add("--out", type=Path, default=Path("demo-out"), metavar="DIR", help="folder of the results (demo-out)")
    add("--steps", type=int, default=DEFAULT_STEPS, help=f"of each inversion ({DEFAULT_STEPS})")
    add("--scene", type=int, default=SEED, metavar="SEED", help=f"seed of the scene ({SEED})")
    add("--device", default="auto", help="auto, cpu or cuda")


def _run(arguments: argparse.Namespace) -> int:
    result = run_demo(
        invert,
        arguments.out,
        steps=arguments.steps,
        seed=arguments.scene,
        device=arguments.device,
        progress=on_terminal(),
    )
    print(result.text)
    print(f"\n{arguments.out / 'sheet.png'} shows it; the figures are in {arguments.out / 'report.json'}.")
    return INTERRUPTED if result.interrupted else 0

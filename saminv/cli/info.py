"""``saminv info``: describes the installation and a generator, or a solution."""

from __future__ import annotations

import argparse
import json
import platform
import textwrap
from pathlib import Path
from typing import Any

import torch

from .._errors import SolutionError
from .._open import load_generator
from .._version import __version__
from ..demo.encoders import bundled_encoders
from ..editing import direction_names
from ..editing._summary import summarise, table
from ..generators import AbstractGenerator
from ..solution import FORMAT, _read
from ..spaces import available_spaces
from ._console import command


def add(commands: Any) -> None:
    """Add the parser of the command."""
    add = command(
        commands,
        "info",
        _run,
        "Describe the installation, a generator or a solution.\n\nWithout a file: versions, devices, and what the "
        "generator offers.",
    ).add_argument
    add("file", type=Path, nargs="?", metavar="FILE", help="solution to describe")
    add("--generator", default="demo", metavar="G", help="name (see saminv fetch --list) or .safetensors file (demo)")
    add("--json", action="store_true", help="print JSON")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.file is None:
        facts = {**_versions(), **_generator_facts(load_generator(arguments.generator))}
    else:
        facts = _solution_facts(arguments.file)
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return 0
    rows = facts.pop("images", None)
    width = max(len(key) for key in facts) + 2
    for key, value in facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        print(textwrap.fill(text, 100, initial_indent=key.ljust(width), subsequent_indent=" " * width))
    if rows is not None:
        print("\n" + table(rows))
    return 0


def _versions() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "saminv": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "devices": [f"cpu ({torch.get_num_threads()} threads)", *[f"cuda:{i} ({name})" for i, name in enumerate(gpus)]],
    }


def _generator_facts(generator: AbstractGenerator) -> dict[str, Any]:
    """What a generator is and offers."""
    sites = [f"{name}:{'x'.join(map(str, site.shape))}" for name, site in generator.sites.items()]
    return {
        "generator": type(generator).__name__,
        "image size": "{} x {}".format(*reversed(generator.image_size)),
        "styles": f"{generator.num_styles} x {generator.style_dim}",
        "classes": generator.label_dim,
        "fingerprint": generator.fingerprint,
        "sites": sites,
        "spaces": available_spaces(generator),
        "default spaces": list(generator.default_spaces),
        "directions": direction_names(generator) or ["none"],
        "encoders": bundled_encoders(generator) or ["none"],
    }


def _solution_facts(path: Path) -> dict[str, Any]:
    """What a solution file holds; its generator is not needed for it."""
    header, arrays = _read(path)
    try:
        provenance = json.loads(header["provenance"])
        stats = {name[6:]: value for name, value in arrays.items() if name.startswith("stats/")}
        height, width = arrays["image"].shape[-2:]
        return {
            "format": FORMAT,
            "saminv": provenance.get("saminv"),
            "generator": provenance.get("generator") or "not a bundled one",
            "fingerprint": provenance.get("fingerprint"),
            "image size": f"{width} x {height}",
            "spaces": json.loads(header["spaces"]),
            **{key: provenance.get(key) for key in ("tau", "metric", "invertibility", "steps", "seed", "label")},
            "images": summarise(provenance, stats, arrays["status"]),
        }
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise SolutionError(f"{path} is damaged: {error!r}. Restore it from a copy or invert again.") from error

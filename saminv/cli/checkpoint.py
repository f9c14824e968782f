"""``saminv inspect`` and ``saminv convert``: what a checkpoint is, and the library's own form of it."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoints import (
    Checkpoint,
    build_checkpoint,
    checkpoint_notes,
    open_checkpoint,
    printable,
    save_checkpoint,
)
from ..generators import AbstractGenerator
from ..spaces import available_spaces
from ._console import command, tell

FOREIGN = "A checkpoint is a file of a published code, or a folder for BigGAN-deep. Nothing in it is executed."


def add(commands: Any) -> None:
    """Add the parsers of both commands."""
    add = command(
        commands,
        "inspect",
        _inspect,
        f"Say what a checkpoint is: its form, network, resolution and spaces.\n\n{FOREIGN}",
    ).add_argument
    add("file", type=Path, metavar="FILE", help="checkpoint to look at")
    add("--part", metavar="NAME", help="which of its networks: G, D, G_ema, encoder, decoder (the best one)")
    add("--json", action="store_true", help="print JSON")
    add = command(
        commands,
        "convert",
        _convert,
        f"Write a checkpoint in the library's own form, a .safetensors file.\n\n{FOREIGN}",
    ).add_argument
    add("file", type=Path, metavar="FILE", help="checkpoint to read")
    add("out", type=Path, metavar="OUT", help="file to write, ending in .safetensors")
    add("--part", metavar="NAME", help="which of its networks: G, D, G_ema, encoder, decoder (the best one)")


def _inspect(arguments: argparse.Namespace) -> int:
    checkpoint = open_checkpoint(arguments.file, arguments.part)
    facts: dict[str, Any] = {"file": str(arguments.file), **_checkpoint_facts(checkpoint)}
    if _has_generator(checkpoint):
        generator = build_checkpoint(checkpoint, arguments.file)
        facts |= _generator_facts(generator)
        notes = checkpoint_notes(checkpoint, generator)
    else:
        facts |= {"arrays": len(checkpoint.arrays), "parameters": sum(x.numel() for x in checkpoint.arrays.values())}
        notes = checkpoint.notes
    facts["notes"] = list(notes)
    if arguments.json:
        print(json.dumps({**facts, "settings": _plain(checkpoint.settings)}, indent=2))
        return 0
    shown = {key: value for key, value in facts.items() if value not in ("", [], None)}
    width = max(map(len, shown)) + 2
    for key, value in shown.items():
        text = (" " if key == "notes" else ", ").join(map(str, value)) if isinstance(value, list) else str(value)
        print(textwrap.fill(printable(text), 100, initial_indent=key.ljust(width), subsequent_indent=" " * width))
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    checkpoint = open_checkpoint(arguments.file, arguments.part)
    generator, notes = None, checkpoint.notes
    if checkpoint.kind == "generator":
        generator = build_checkpoint(checkpoint, arguments.file)
        notes = checkpoint_notes(checkpoint, generator)
    out = save_checkpoint(checkpoint, arguments.out, generator, arguments.file.name)
    if generator is not None:
        again = open_checkpoint(out)
        assert build_checkpoint(again, out).fingerprint == generator.fingerprint, "the file must hold what was built"
    for note in notes:
        tell(printable(note))
    print(out)
    return 0


def _has_generator(checkpoint: Checkpoint) -> bool:
    return checkpoint.kind == "generator" or checkpoint.decoder is not None


def _checkpoint_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint says without being built."""
    family = checkpoint.family
    if checkpoint.decoder is not None:
        family = f"{family} with a {checkpoint.decoder.family} generator"
    return {
        "format": checkpoint.form,
        "kind": checkpoint.kind,
        "family": family,
        "network": checkpoint.part,
        "networks": list(checkpoint.parts),
    }


def _generator_facts(generator: AbstractGenerator) -> dict[str, Any]:
    """What its generator is and offers."""
    features = {generator.sites[name].shape for name in generator.feature_sites}
    channels = sorted({(shape[-1], shape[0]) for shape in features})
    return {
        "resolution": "{} x {}".format(*reversed(generator.image_size)),
        "channels": [f"{count} at {side}" for side, count in channels],
        "styles": f"{generator.num_styles} x {generator.style_dim}",
        "noise": generator.z_dim,
        "classes": generator.label_dim,
        "parameters": sum(tensor.numel() for tensor in generator.parameters()),
        "spaces": available_spaces(generator),
        "default spaces": list(generator.default_spaces),
        "fingerprint": generator.fingerprint,
    }


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, without what the library's own files keep as texts of JSON."""
    return {key: value for key, value in settings.items() if key not in ("config", "card")}

"""The library's own form of any checkpoint: one safetensors file, with what is known about it in the metadata.

A generator becomes one of this library (:func:`saminv.generators.save_generator`). Everything else keeps the arrays and
names that it has, so that nothing is lost.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save as serialise

from .._errors import CheckpointError, OutputError
from .._files import atomic_write
from ..generators import AbstractGenerator, save_generator
from ._found import CONVERTED, DECODER, Checkpoint


def save_checkpoint(
    checkpoint: Checkpoint, path: str | Path, generator: AbstractGenerator | None = None, source: str = ""
) -> Path:
    """Write a checkpoint in the library's own form.

    Args:
        checkpoint: What to write.
        path: A file ending in .safetensors.
        generator: What was built of it, which is written for a checkpoint of the kind "generator".
        source: Name of the file that it is from, for the card.

    Raises:
        OutputError: If the place cannot be written, or has another ending.
        CheckpointError: If it is of this library already, but no generator.
    """
    if Path(path).suffix != ".safetensors":
        raise OutputError(f"Cannot write {path}: the library's own form ends in .safetensors; choose such a name.")
    card = {"source": source, "form": checkpoint.form, "part": checkpoint.part, "notes": list(checkpoint.notes)}
    if checkpoint.kind == "generator" and generator is not None:
        return save_generator(generator, path, {"card": json.dumps(card)})
    if checkpoint.kind in ("generator", "solution") or checkpoint.form == "saminv safetensors":
        raise CheckpointError(f"A {checkpoint.kind} ({checkpoint.form}) has no other form to be converted to.")
    arrays = dict(checkpoint.arrays)
    if checkpoint.decoder is not None:
        arrays |= {f"{DECODER}{name}": tensor for name, tensor in checkpoint.decoder.arrays.items()}
    header = {"format": CONVERTED, "checkpoint": json.dumps(_described(checkpoint)), "card": json.dumps(card)}
    content = serialise({name: tensor.contiguous().clone() for name, tensor in arrays.items()}, header)
    with atomic_write(path) as temporary:
        Path(temporary).write_bytes(content)
    return Path(path)


def _described(checkpoint: Checkpoint) -> dict[str, object]:
    """All of a checkpoint but its arrays."""
    decoder = checkpoint.decoder
    return {
        **{name: getattr(checkpoint, name) for name in ("kind", "family", "form", "names", "part", "parts", "notes")},
        "settings": dict(checkpoint.settings),
        "decoder": None if decoder is None else _described(decoder),
    }

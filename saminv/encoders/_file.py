"""The library's own form of an encoder: one safetensors file, architecture and configuration in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from .._errors import CheckpointError
from .._files import atomic_write
from ..weights.published import IGNORED
from ._base import ARCHITECTURES, AbstractEncoder, EncoderConfig

FORMAT = "saminv.encoder.1"


def save_encoder(
    encoder: AbstractEncoder, path: str | Path, metadata: Mapping[str, str] | None = None, *, half: bool = False
) -> Path:
    """Write an encoder of any architecture with its configuration; returns the path.

    Args:
        encoder: The encoder.
        path: The file; it appears whole or not at all.
        metadata: Further texts for the header.
        half: Store kernels as float16, which changes codes by about one part in a thousand.

    Raises:
        OutputError: If the file cannot be written.
    """
    state = {
        name: x.detach().cpu().contiguous() for name, x in encoder.state_dict().items() if not IGNORED.search(name)
    }
    if half:
        # Biases and statistics stay: they are few, and variances may lie outside the range of float16.
        state = {name: x.half() if x.dim() > 1 else x for name, x in state.items()}
    header = {"format": FORMAT, "architecture": encoder.architecture, "config": encoder.config.to_json()}
    with atomic_write(path) as temporary:
        Path(temporary).write_bytes(serialise(state, {**(metadata or {}), **header}))
    return Path(path)


def is_encoder_file(path: str | Path) -> bool:
    """Whether a file is one that :func:`save_encoder` wrote."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def encoder_from_arrays(arrays: Mapping[str, Tensor], metadata: Mapping[str, str], what: str) -> AbstractEncoder:
    """Build a frozen encoder from what :func:`save_encoder` wrote; ``what`` names it in errors.

    Raises:
        CheckpointError: If the metadata are of another thing, or the arrays do not fit them.
    """
    architecture = metadata.get("architecture", "none")
    if metadata.get("format") != FORMAT or architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"{what} is no encoder of this library (format {metadata.get('format')!r}, architecture {architecture}; "
            f"known: {', '.join(ARCHITECTURES)})."
        )
    config = ARCHITECTURES.get(architecture).configuration.from_json(metadata.get("config", ""))
    return build_encoder(architecture, config, arrays, what)


def build_encoder(architecture: str, config: EncoderConfig, arrays: Mapping[str, Tensor], what: str) -> AbstractEncoder:
    """Build a frozen encoder from its configuration and its arrays under our names.

    Raises:
        CheckpointError: If an array is missing, unknown, of another shape, or not finite; the first one is named.
    """
    try:
        with torch.device("meta"):
            encoder = ARCHITECTURES.get(architecture)(config)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{what} is damaged: there is no {architecture} encoder {config}: {error}") from error
    slots, filled = encoder.state_dict(), {}
    for name, slot in slots.items():
        if IGNORED.search(name):
            filled[name] = torch.zeros(slot.shape, dtype=slot.dtype)
            continue
        if name not in arrays or arrays[name].shape != slot.shape:
            found = f"{list(arrays[name].shape)}" if name in arrays else "no such array"
            raise CheckpointError(
                f"{what} is damaged, or no whole {architecture} encoder: {name} should be {list(slot.shape)}, found "
                f"{found}."
            )
        filled[name] = arrays[name].detach().to("cpu", slot.dtype, copy=True)
        if not bool(filled[name].isfinite().all()):
            raise CheckpointError(f"{what} is damaged: {name} has values that are infinite or not a number.")
    unknown = [name for name in arrays if name not in slots and not IGNORED.search(name)]
    if unknown:
        raise CheckpointError(f"{what} is no {architecture} encoder: it has an unknown array {unknown[0]}.")
    encoder.load_state_dict(filled, assign=True)
    return encoder.freeze()

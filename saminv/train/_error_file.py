"""One file of a data set of measured error maps: writing, its header, reading."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._errors import CheckpointError, InputError
from .._files import atomic_write, ensure_folder
from ..images import from_uint8, to_uint8
from ..weights import read_safetensors

FORMAT = "saminv.errors.1"
_LARGEST = float(torch.finfo(torch.float16).max)


@dataclass(frozen=True)
class ErrorRecord:
    """What stands in the header of one file.

    Attributes:
        path: The file.
        space: Name of the latent space.
        fingerprint: Of the generator.
        metric: Name of the perceptual metric.
        steps: Optimisation steps of the inversion.
        hash: SHA-256 of the target's bytes, hexadecimal.
        psnr: Of the inversion, in dB.
        size: Height and width of the target in pixels.
    """

    path: Path
    space: str
    fingerprint: str
    metric: str
    steps: int
    hash: str
    psnr: float
    size: tuple[int, int]


def save_errors(
    path: str | Path,
    target: Tensor,
    error: Tensor,
    *,
    space: str,
    fingerprint: str,
    metric: str,
    steps: int,
    psnr: float,
) -> Path:
    """Write one measured error map; the file appears whole or not at all, and its folder is made. Returns the path.

    Args:
        path: ``<folder>/<space>/results/<name>.safetensors``.
        target: `[3, H, W]` in [-1, 1]; kept in 256 levels.
        error: `[1, H, W]` or `[H, W]`, finite, from 0 to 65504; kept as float16.
        space: Name of the space, such as "W+" or "F6".
        fingerprint: Of the generator.
        metric: Name of the perceptual metric of the map.
        steps: Optimisation steps of the inversion.
        psnr: Of the inversion, in dB.

    Raises:
        InputError: If the target or the map has another shape or impossible values.
        OutputError: If the file cannot be written.
    """
    from safetensors.torch import save

    if target.dim() != 3 or target.shape[0] != 3:
        raise InputError(f"A target is [3, H, W], not {list(target.shape)}.")
    pixels = torch.from_numpy(to_uint8(target[None])[0]).permute(2, 0, 1).contiguous()
    values = _checked_error(error, target)
    metadata = {
        "format": FORMAT,
        "space": space,
        "fingerprint": fingerprint,
        "metric": metric,
        "steps": str(int(steps)),
        "psnr": repr(float(psnr)),
        "hash": _hash(pixels),
    }
    ensure_folder(Path(path).parent)
    with atomic_write(path) as temporary:
        temporary.write_bytes(save({"target": pixels, "error": values}, metadata))
    return Path(path)


def read_record(path: str | Path) -> ErrorRecord:
    """Read the header of an error file, without its arrays.

    Raises:
        CheckpointError: If the file is damaged, incomplete, or no error file.
    """
    path = Path(path)
    header = _header(path)
    kept: Any = header.get("__metadata__", {})
    if kept.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no file of measured errors: its format is {kept.get('format')!r}.")
    try:
        shape, expected = header["target"]["shape"], header["error"]["shape"]
        kinds = header["target"]["dtype"], header["error"]["dtype"]
        if kinds != ("U8", "F16") or len(shape) != 3 or shape[0] != 3 or shape[1:] != expected:
            raise ValueError(f"arrays {kinds} of shapes {shape} and {expected}")
        return ErrorRecord(
            path=path,
            space=kept["space"],
            fingerprint=kept["fingerprint"],
            metric=kept["metric"],
            steps=int(kept["steps"]),
            hash=kept["hash"],
            psnr=float(kept["psnr"]),
            size=(int(shape[1]), int(shape[2])),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is a damaged file of measured errors ({error!r}); measure it again.") from error


def read_errors(record: ErrorRecord) -> tuple[Tensor, Tensor]:
    """Target `[3, H, W]` in [-1, 1] and error `[H, W]` >= 0 of a file, float32.

    Raises:
        CheckpointError: If the file is damaged or has changed since its header was read.
    """
    try:
        tensors, _ = read_safetensors(record.path.read_bytes(), str(record.path))
    except OSError as error:
        raise CheckpointError(f"{record.path} cannot be read: {error}") from error
    pixels, values = tensors["target"], tensors["error"].float()
    if _hash(pixels) != record.hash or not bool((values.isfinite() & (values >= 0)).all()):
        raise CheckpointError(f"{record.path} is damaged: its contents are not what was saved; measure it again.")
    return from_uint8(pixels.permute(1, 2, 0).contiguous().numpy())[0], values


def _header(path: Path) -> Mapping[str, Any]:
    """The JSON header of a safetensors file, after checking that the file is as long as it says."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            total = os.fstat(file.fileno()).st_size
            if length > total - 8:
                raise ValueError("it is too short")
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        if 8 + length + max(ends, default=0) != total:
            raise ValueError(f"it has {total} bytes, its header says {8 + length + max(ends, default=0)}")
        return header
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}); measure it again.") from error


def _checked_error(error: Tensor, target: Tensor) -> Tensor:
    values = error.detach().cpu().float()
    values = values[0] if values.dim() == 3 and len(values) == 1 else values
    if values.shape != target.shape[1:]:
        raise InputError(f"The error map must be {list(target.shape[1:])} as its target, not {list(error.shape)}.")
    if not bool(((values >= 0) & (values <= _LARGEST)).all()):
        raise InputError("The error map has values that are negative, not finite, or too large for float16.")
    return values.half().contiguous()


def _hash(pixels: Tensor) -> str:
    return hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest()

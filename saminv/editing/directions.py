"""Directions in W or W+: by name, from a file, or given as a tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import CheckpointError, InputError
from ..checkpoints import read_arrays
from ..generators import AbstractGenerator
from ..weights import load_bundled

BUNDLED = "demo-directions"


def _bundled(generator: AbstractGenerator) -> dict[str, Tensor]:
    """Directions shipped for this very generator, by name."""
    arrays, metadata = load_bundled(BUNDLED)
    return arrays if metadata.get("generator_fingerprint") == generator.fingerprint else {}


def direction_names(generator: AbstractGenerator) -> list[str]:
    """Names of the directions known for a generator."""
    return sorted(_bundled(generator))


def resolve_direction(direction: Any, generator: AbstractGenerator) -> Tensor:
    """Turn a name, file or tensor into a change of the styles `[1, L, D]` for strength 1.

    Args:
        direction: A bundled name, a .npy, .npz, .pt or .safetensors file with one array, or an array `[D]`, `[L, D]`,
            `[1, D]`, `[1, L, D]` or `[1, L * D]`.
        generator: Gives L and D.

    Raises:
        InputError: For an unknown name, or an array that does not fit or is not finite.
        CheckpointError: For a file that cannot be read.
    """
    if isinstance(direction, (str, Path)):
        found = _named(str(direction), generator)
    else:
        found = direction if isinstance(direction, Tensor) else _tensor(np.asarray(direction))
    return _fit(found, generator).to(generator.device, generator.dtype)


def _named(name: str, generator: AbstractGenerator) -> Tensor:
    known = _bundled(generator)
    if name in known:
        return known[name]
    if Path(name).suffix in (".npy", ".npz", ".pt", ".pth", ".safetensors"):
        return _from_file(Path(name))
    names = ", ".join(sorted(known)) or "none for this generator"
    raise InputError(f"Unknown direction {name!r}. Known: {names}; or give a .npy, .npz, .pt or .safetensors file.")


def _from_file(path: Path) -> Tensor:
    if not path.is_file():
        raise InputError(f"The direction file {path} does not exist.")
    arrays = list(read_arrays(path).values())
    if len(arrays) != 1:
        raise CheckpointError(f"{path} holds {len(arrays)} arrays; a direction file holds one.")
    return arrays[0]


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "fiu":
        raise InputError(f"A direction must be an array of numbers, not of {array.dtype}.")
    # Files may come in the byte order of another machine, which torch does not take.
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))


def _fit(direction: Tensor, generator: AbstractGenerator) -> Tensor:
    slots, width = generator.num_styles, generator.style_dim
    if not direction.is_floating_point() or not bool(torch.isfinite(direction).all()):
        raise InputError("A direction must be an array of finite floating-point numbers.")
    squeezed = direction[0] if direction.dim() in (2, 3) and direction.shape[0] == 1 else direction
    if squeezed.shape == (slots * width,):
        squeezed = squeezed.reshape(slots, width)
    if squeezed.shape == (width,):
        squeezed = squeezed.expand(slots, width)
    if squeezed.shape != (slots, width):
        raise InputError(f"The direction is {list(direction.shape)}; allowed is [{width}] or [{slots}, {width}].")
    return squeezed[None]

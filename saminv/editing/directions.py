"""Directions as tensors in W or W+: by name, from a file, or given; :mod:`.references` knows all other kinds too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .._errors import CheckpointError, InputError
from ..generators import AbstractGenerator
from ..weights import load_bundled
from .change import AbstractDirection, LinearDirection
from .published import tensor_of
from .sets import kept_names, kept_set

BUNDLED = "demo-directions"


def _bundled(generator: AbstractGenerator) -> dict[str, Tensor]:
    """Directions shipped for this very generator, by name."""
    arrays, metadata = load_bundled(BUNDLED)
    return arrays if metadata.get("generator_fingerprint") == generator.fingerprint else {}


def direction_names(generator: AbstractGenerator) -> list[str]:
    """Names of the directions known for a generator: those that come with it, then those that were found."""
    kept = [reference for name in kept_names(generator) for reference in kept_set(generator, name).references]
    return sorted(_bundled(generator)) + kept


def resolve_direction(direction: Any, generator: AbstractGenerator) -> Tensor:
    """Turn a name, file or tensor into a change of the styles `[1, L, D]` for strength 1.

    Args:
        direction: A name, a file, or an array `[D]`, `[L, D]`, `[1, D]` or `[1, L, D]`; names and files as for
            :func:`saminv.editing.find_direction`.
        generator: Gives L and D.

    Raises:
        InputError: For an unknown name, an array that does not fit or is not finite, or a direction that is more than
            one change of the styles.
        CheckpointError: For a file that cannot be read.
    """
    if isinstance(direction, (str, Path, AbstractDirection)):
        from .references import find_direction

        found = find_direction(direction, generator)
        if not isinstance(found, LinearDirection) or found.channels:
            raise InputError(
                f"The direction {direction!r} is no tensor: it depends on the styles, or changes channels."
            )
        return found.styles[None].to(generator.device, generator.dtype)
    given = direction if isinstance(direction, Tensor) else tensor_of(np.asarray(direction))
    return _fit(given, generator).to(generator.device, generator.dtype)


def bundled_direction(name: str, generator: AbstractGenerator) -> Tensor | None:
    """A direction that comes with a generator `[L, D]`, None if there is none of that name."""
    known = _bundled(generator)
    return _fit(known[name], generator)[0] if name in known else None


def array_file(path: Path, generator: AbstractGenerator) -> Tensor:
    """The direction `[L, D]` in a .safetensors file with one array.

    Raises:
        InputError: If there is no such file, or the array does not fit.
        CheckpointError: If the file cannot be read or holds several.
    """
    if not path.is_file():
        raise InputError(f"The direction file {path} does not exist.")
    try:
        arrays = list(load_file(path).values())
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} is no readable array file: {str(error).rstrip('.')}.") from error
    if len(arrays) != 1:
        raise CheckpointError(f"{path} holds {len(arrays)} arrays; a direction file holds one.")
    return _fit(arrays[0], generator)[0]


def _fit(direction: Tensor, generator: AbstractGenerator) -> Tensor:
    slots, width = generator.num_styles, generator.style_dim
    if not direction.is_floating_point() or not bool(torch.isfinite(direction).all()):
        raise InputError("A direction must be an array of finite floating-point numbers.")
    squeezed = direction[0] if direction.dim() in (2, 3) and direction.shape[0] == 1 else direction
    if squeezed.shape == (width,):
        squeezed = squeezed.expand(slots, width)
    if squeezed.shape != (slots, width):
        raise InputError(f"The direction is {list(direction.shape)}; allowed is [{width}] or [{slots}, {width}].")
    return squeezed[None]

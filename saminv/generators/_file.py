"""The library's own form of a generator: one safetensors file, family and configuration in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save as serialise
from torch import Tensor

from .._errors import CheckpointError, InputError
from .._files import atomic_write
from ._base import FAMILIES, AbstractGenerator


def save_generator(generator: AbstractGenerator, path: str | Path, metadata: Mapping[str, str] | None = None) -> Path:
    """Write a generator of any family with its configuration; ``metadata`` is kept beside it.

    Raises:
        OutputError: If the place cannot be written.
    """
    arrays = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in generator.state_dict().items()}
    header = {"family": generator.family, "config": json.dumps(asdict(generator.config)), **(metadata or {})}
    with atomic_write(path) as temporary:
        Path(temporary).write_bytes(serialise(arrays, header))
    return Path(path)


def generator_from_arrays(arrays: Mapping[str, Tensor], metadata: Mapping[str, str], what: str) -> AbstractGenerator:
    """Build a frozen generator from what :func:`save_generator` wrote; ``what`` names it in errors.

    Raises:
        CheckpointError: If the metadata are of another thing, or the arrays do not fit them.
    """
    family = metadata.get("family", "none")
    if family not in FAMILIES:
        raise CheckpointError(
            f"{what} holds no generator of saminv (family {family or 'none'}; known: {', '.join(FAMILIES)})."
        )
    try:
        fields = {name: _frozen(value) for name, value in json.loads(metadata["config"]).items()}
        return build_generator(family, fields, arrays, what)
    except (KeyError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{what} is damaged: {error}") from error


def build_generator(
    family: str, fields: Mapping[str, Any], arrays: Mapping[str, Tensor], what: str
) -> AbstractGenerator:
    """Build a frozen generator of a family from the fields of its configuration and its arrays.

    Raises:
        CheckpointError: If the configuration makes no sense, or an array is missing, unknown or of another shape.
    """
    kind: Any = FAMILIES.get(family)
    try:
        generator = kind(kind.configuration(**fields))
        generator.load_state_dict({name: tensor.float() for name, tensor in arrays.items()})
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{what} is damaged, or its arrays do not fit its configuration: {error}") from error
    return generator.freeze()


def with_crop(generator: AbstractGenerator, crop: tuple[int, int] | None) -> AbstractGenerator:
    """The same network with a picture of (height, width) ``crop`` in the middle of its canvas; it shares the arrays.

    Raises:
        InputError: If the crop does not fit the canvas, or the family knows none.
    """
    if not hasattr(getattr(generator, "config", None), "crop"):
        raise InputError(f"{type(generator).__name__} knows no crop; leave crop=None.")
    config = replace(generator.config, crop=crop)
    if config == generator.config:
        return generator
    kind: Any = type(generator)
    cropped = kind(config).to(generator.device)
    cropped.load_state_dict(generator.state_dict(), assign=True)
    cropped.name = generator.name
    return cropped.freeze()


def _frozen(value: Any) -> Any:
    """JSON's lists as the tuples that configurations have."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value

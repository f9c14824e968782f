"""The library's own form of a generator: one safetensors file, family and configuration in its metadata."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialise
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .._errors import CheckpointError, InputError
from .._files import atomic_write
from ._base import FAMILIES, AbstractGenerator

MOST = 1 << 24
"""Whole number from which a configuration makes no sense."""
SLACK = 1 << 24
"""Numbers that a network may have beside the arrays of its file."""
_FACTORIES = (torch.randn, torch.empty, torch.zeros, torch.ones, torch.full)


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
        config = kind.configuration(**fields)
        _check_fields(fields, arrays)
        with _Bounded(sum(tensor.numel() for tensor in arrays.values())):
            generator = kind(config)
        _check_shapes(generator.state_dict(), arrays)
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


def _check_fields(fields: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
    """Refuse more layers than there are arrays, which would be built one by one before any shape can be compared."""
    for name, value in fields.items():
        if isinstance(value, int) and (abs(value) > MOST or ("layers" in name and value > len(arrays))):
            raise CheckpointError(f"{name} is {value}, for {len(arrays)} arrays")


def _check_shapes(expected: Mapping[str, Tensor], arrays: Mapping[str, Tensor]) -> None:
    missing = [name for name in expected if name not in arrays]
    extra = [name for name in arrays if name not in expected]
    if missing or extra:
        parts = [(missing, "missing"), (extra, "unknown")]
        told = [f"{len(names)} {word}, the first is {names[0][:80]!r}" for names, word in parts if names]
        raise CheckpointError(f"of its arrays {' and '.join(told)}")
    for name, slot in expected.items():
        if slot.shape != arrays[name].shape:
            raise CheckpointError(f"{name} is {list(arrays[name].shape)}, not {list(slot.shape)}")


class _Bounded(TorchFunctionMode):
    """While a network is built: no values of parameters, which arrays of a file replace at once, and a bound on sizes.

    A configuration can ask for more than its arrays hold, and for more than any memory does.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left = count + SLACK

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in _FACTORIES:
            size = kwargs.get("size", args[0] if args and not isinstance(args[0], int) else args)
            self.left -= math.prod(size)
            if self.left < 0:
                raise CheckpointError("it describes a network that is larger than its arrays")
        if function is torch.Tensor.to and isinstance(args[0], nn.Parameter) and "memory_format" in kwargs:
            return torch.empty_like(args[0], memory_format=kwargs["memory_format"])
        if function is torch.randn:
            return torch.empty(*args, **{name: value for name, value in kwargs.items() if name != "generator"})
        return function(*args, **kwargs)


def _frozen(value: Any) -> Any:
    """JSON's lists as the tuples that configurations have."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value

"""Directions in the styles, or a part of them: by name, from a file, as a tensor, or between two classes."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .._errors import CheckpointError, InputError
from ..generators import AbstractGenerator
from ..sites import STYLE_KINDS, Add
from ..weights import load_bundled

BUNDLED = "demo-directions"


def _bundled(generator: AbstractGenerator) -> dict[str, Tensor]:
    """Directions shipped for this very generator, by name."""
    arrays, metadata = load_bundled(BUNDLED)
    return arrays if metadata.get("generator_fingerprint") == generator.fingerprint else {}


def direction_names(generator: AbstractGenerator) -> list[str]:
    """Names of the directions known for a generator."""
    return sorted(_bundled(generator))


def class_direction(generator: AbstractGenerator, start: Tensor | int, end: Tensor | int) -> Tensor:
    """The change of the styles from one class to another, `[L, D]`.

    It is the difference of their embeddings where blocks read one, and that of their mean w elsewhere.

    Args:
        generator: One with labels.
        start, end: Class numbers, or vectors of classes.

    Raises:
        InputError: If the generator has no such label.
    """
    before, after = (generator.mean_styles(generator.label_tensor(label, 1)) for label in (start, end))
    return (after - before).to(generator.dtype)


def resolve_direction(direction: Any, generator: AbstractGenerator, label: Any = None) -> Tensor:
    """Turn a name, file, tensor or parts into a change of the styles `[1, L, D]` for strength 1.

    Args:
        direction: A bundled name; "class:K" for the change to class K; a .npy or .npz file with one array or a
            .safetensors file with one or with parts; an array `[D]`, `[L, D]`, `[1, D]` or `[1, L, D]`; or arrays of
            parts of the styles by their sites, such as ``{"z": [Z]}`` or ``{"class": [L, E]}``.
        generator: Gives L and D.
        label: From which "class:K" starts.

    Raises:
        InputError: For an unknown name, or an array that does not fit or is not finite.
        CheckpointError: For a file that cannot be read.
    """
    if isinstance(direction, (str, Path)):
        direction = _named(str(direction), generator, label)
    if isinstance(direction, Mapping):
        return _composed(direction, generator)
    return _fit(_array(direction), generator).to(generator.device, generator.dtype)


def _array(direction: Any) -> Tensor:
    return direction if isinstance(direction, Tensor) else _tensor(np.asarray(direction))


def _named(name: str, generator: AbstractGenerator, label: Any) -> Tensor | Mapping[str, Tensor]:
    known = _bundled(generator)
    if name in known:
        return known[name]
    if Path(name).suffix in (".npy", ".npz", ".safetensors"):
        return _from_file(Path(name), generator)
    if match := re.fullmatch(r"class:(\d+)", name):
        return class_direction(generator, label, int(match[1]))
    names = ", ".join(sorted(known)) or "none for this generator"
    classes = ", class:K for class K" if generator.label_dim else ""
    raise InputError(f"Unknown direction {name!r}. Known: {names}{classes}; or give a .npy, .npz or .safetensors file.")


def _style_parts(generator: AbstractGenerator) -> dict[str, tuple[int, ...]]:
    """Shapes of the styles and of their parts, by site."""
    return {name: site.shape for name, site in generator.sites.items() if site.kind in STYLE_KINDS}


@torch.no_grad()
def _composed(parts: Mapping[str, Any], generator: AbstractGenerator) -> Tensor:
    """Styles `[1, L, D]` that are zero but for some parts."""
    sites = _style_parts(generator)
    unknown = [str(name) for name in parts if name not in sites]
    if not parts:
        raise InputError(f"A direction must be an array, or arrays by parts of the styles: {', '.join(sites)}.")
    if unknown:
        raise InputError(f"Styles of this generator have no part {', '.join(unknown)}; they have: {', '.join(sites)}.")
    nothing = torch.zeros(1, generator.num_styles, generator.style_dim, dtype=generator.dtype, device=generator.device)
    changes = [Add(name, _shaped(_array(x), sites[name], name).to(nothing)) for name, x in parts.items()]
    found = generator.synthesis(nothing, changes, until="styles")
    assert isinstance(found, dict)
    return found["styles"]


def _from_file(path: Path, generator: AbstractGenerator) -> Tensor | Mapping[str, Tensor]:
    if not path.is_file():
        raise InputError(f"The direction file {path} does not exist.")
    try:
        if path.suffix == ".safetensors":
            named = load_file(path)
            if named and set(named) <= set(_style_parts(generator)):
                return named
            arrays = list(named.values())
        else:
            loaded = np.load(path, allow_pickle=False)
            arrays = [_tensor(loaded)] if isinstance(loaded, np.ndarray) else [_tensor(loaded[k]) for k in loaded.files]
    except (OSError, EOFError, ValueError, SafetensorError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointError(f"{path} is no readable array file: {str(error).rstrip('.')}.") from error
    if len(arrays) != 1:
        raise CheckpointError(f"{path} holds {len(arrays)} arrays; a direction file holds one.")
    return arrays[0]


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "fiu":
        raise InputError(f"A direction must be an array of numbers, not of {array.dtype}.")
    # Files may come in the byte order of another machine, which torch does not take.
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))


def _fit(direction: Tensor, generator: AbstractGenerator) -> Tensor:
    parts = {name: shape for name, shape in _style_parts(generator).items() if name != "styles"}
    listed = ", ".join(f"{name!r} {[shape[1]]} or {list(shape)}" for name, shape in parts.items())
    return _shaped(
        direction,
        (generator.num_styles, generator.style_dim),
        "",
        f"; or a dictionary of the parts {listed}" * bool(parts),
    )


def _shaped(direction: Tensor, shape: tuple[int, ...], part: str, more: str = "") -> Tensor:
    """A direction, or a part of one, as `[1, L, D]`."""
    slots, width = shape
    if not direction.is_floating_point() or not bool(torch.isfinite(direction).all()):
        raise InputError("A direction must be an array of finite floating-point numbers.")
    squeezed = direction[0] if direction.dim() in (2, 3) and direction.shape[0] == 1 else direction
    if squeezed.shape == (width,):
        squeezed = squeezed.expand(slots, width)
    if squeezed.shape != (slots, width):
        what = f"The direction's part {part!r}" if part else "The direction"
        raise InputError(f"{what} is {list(direction.shape)}; allowed is [{width}] or [{slots}, {width}]{more}.")
    return squeezed[None]

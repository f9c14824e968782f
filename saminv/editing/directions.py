"""Directions as changes of the styles or of parts of them: bundled, between classes, in arrays and their files."""

from __future__ import annotations

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


def bundled_direction(name: str, generator: AbstractGenerator) -> Tensor | None:
    """A direction that comes with a generator `[L, D]`, None if there is none of that name."""
    known = _bundled(generator)
    return array_direction(known[name], generator) if name in known else None


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


def array_direction(direction: Any, generator: AbstractGenerator) -> Tensor:
    """The change of the styles `[L, D]` that an array, or arrays by parts of the styles, stand for.

    Args:
        direction: An array `[D]`, `[L, D]`, `[1, D]` or `[1, L, D]`; or such arrays of parts of the styles by their
            sites.
        generator: Gives L, D and the parts.

    Raises:
        InputError: If an array does not fit or is not finite, or the styles have no such part.
    """
    found = _composed(direction, generator) if isinstance(direction, Mapping) else _fit(_array(direction), generator)
    return found.to(generator.device, generator.dtype)


def array_file(path: Path, generator: AbstractGenerator, key: str | None = None) -> Tensor:
    """The direction `[L, D]` in a .safetensors file with one array, or with parts of the styles by their sites.

    Args:
        path: Of the file.
        generator: Gives L, D and the parts.
        key: The array to take where there are several.

    Raises:
        InputError: If there is no such file or key, or the array does not fit.
        CheckpointError: If the file cannot be read or holds several arrays that are no parts.
    """
    if not path.is_file():
        raise InputError(f"The direction file {path} does not exist.")
    try:
        arrays = load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} is no readable array file: {str(error).rstrip('.')}.") from error
    if key is not None and key not in arrays:
        raise InputError(f"{path} has no array {key!r}; it has: {', '.join(arrays)}.")
    chosen = arrays if key is None else {key: arrays[key]}
    if chosen and set(chosen) <= set(_style_parts(generator)):
        return array_direction(chosen, generator)
    if len(chosen) != 1:
        raise CheckpointError(f"{path} holds {len(chosen)} arrays; a direction file holds one.")
    return array_direction(next(iter(chosen.values())), generator)


def _array(direction: Any) -> Tensor:
    return direction if isinstance(direction, Tensor) else tensor_of(np.asarray(direction))


def _style_parts(generator: AbstractGenerator) -> dict[str, tuple[int, ...]]:
    """Shapes of the styles and of their parts, by site."""
    return {name: site.shape for name, site in generator.sites.items() if site.kind in STYLE_KINDS}


@torch.no_grad()
def _composed(parts: Mapping[str, Any], generator: AbstractGenerator) -> Tensor:
    """Styles `[L, D]` that are zero but for some parts."""
    sites = _style_parts(generator)
    unknown = [str(name) for name in parts if name not in sites]
    if not parts:
        raise InputError(f"A direction must be an array, or arrays by parts of the styles: {', '.join(sites)}.")
    if unknown:
        raise InputError(
            f"Styles of this generator have no part {', '.join(unknown)}; they have: {', '.join(sites)}. Several edits "
            "at once are a table from name to share, a number, or pairs of a direction and a share."
        )
    nothing = torch.zeros(1, generator.num_styles, generator.style_dim, dtype=generator.dtype, device=generator.device)
    changes = [Add(name, _shaped(_array(x), sites[name], name)[None].to(nothing)) for name, x in parts.items()]
    found = generator.synthesis(nothing, changes, until="styles")
    assert isinstance(found, dict)
    return found["styles"][0]


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
    """A direction, or a part of one, as `[L, D]`."""
    slots, width = shape
    if not direction.is_floating_point() or not bool(torch.isfinite(direction).all()):
        raise InputError("A direction must be an array of finite floating-point numbers.")
    squeezed = direction[0] if direction.dim() in (2, 3) and direction.shape[0] == 1 else direction
    if squeezed.shape == (width,):
        squeezed = squeezed.expand(slots, width)
    if squeezed.shape != (slots, width):
        what = f"The direction's part {part!r}" if part else "The direction"
        raise InputError(f"{what} is {list(direction.shape)}; allowed is [{width}] or [{slots}, {width}]{more}.")
    return squeezed

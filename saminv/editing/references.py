"""Directions of every kind by name: bundled, found, of published files, as tensors, in some slots, and several at once.

A name is ``NAME``, ``NAME#KEY`` for one of several in a file, each followed by ``@SLOTS`` for some style slots only:
``car_hue``, ``sefa/3``, ``ganspace/0@0-3``, ``ffhq_pca.pt#10@7-9``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._errors import CheckpointError, InputError
from ..generators import AbstractGenerator
from .change import AbstractDirection, LinearDirection, Together, parse_slots
from .directions import array_file, bundled_direction, direction_names, resolve_direction
from .published import SUFFIXES, read_published
from .sets import DirectionSet, kept_names, kept_set

FILES = (*SUFFIXES, ".safetensors")
_SLOTS = re.compile(r"(.+)@([\d,-]+)")
_KEY = re.compile(r"(.+)#([^#/]+)")


def find_direction(direction: Any, generator: AbstractGenerator) -> AbstractDirection:
    """Turn anything that says a direction into one.

    Args:
        direction: A name as above, with a file (.npy, .npz, .pt, .safetensors) in place of NAME if you like; an array
            `[D]`, `[L, D]`, `[1, D]` or `[1, L, D]`; a direction; or several at once, as a table from name to share, or
            pairs of a direction and a share of the strength.
        generator: That the direction is for.

    Raises:
        InputError: For an unknown name, or a direction that does not fit the generator.
        CheckpointError: For a file that cannot be read.
    """
    if isinstance(direction, AbstractDirection):
        return direction
    if isinstance(direction, (str, Path)):
        return _named(str(direction), generator)
    parts = _parts(direction)
    if parts is not None:
        return Together(tuple((find_direction(part, generator), share) for part, share in parts))
    return LinearDirection(resolve_direction(direction, generator)[0])


def _parts(direction: Any) -> list[tuple[Any, float]] | None:
    """Pairs of a direction and a share, if that is what it is."""
    if isinstance(direction, Mapping):
        pairs = list(direction.items())
    elif isinstance(direction, (list, tuple)) and direction and all(isinstance(p, (list, tuple)) for p in direction):
        pairs = [tuple(pair) for pair in direction]
    else:
        return None
    if not all(len(pair) == 2 and isinstance(pair[1], (int, float)) for pair in pairs):
        return None
    # Rows of two numbers are an array.
    return pairs if pairs and not any(isinstance(pair[0], (int, float)) for pair in pairs) else None


def _named(name: str, generator: AbstractGenerator) -> AbstractDirection:
    slots = _SLOTS.fullmatch(name)
    if slots and not Path(name).is_file():
        return _whole(slots[1], generator).in_slots(parse_slots(slots[2], generator.num_styles))
    return _whole(name, generator)


def _whole(name: str, generator: AbstractGenerator) -> AbstractDirection:
    """A direction in all of its slots."""
    known = bundled_direction(name, generator)
    if known is not None:
        return LinearDirection(known)
    keyed = None if Path(name).is_file() else _KEY.fullmatch(name)
    file, key = (keyed[1], keyed[2]) if keyed else (name, None)
    if Path(file).suffix in SUFFIXES:
        return read_published(file, generator, key)
    if Path(file).suffix == ".safetensors":
        return _of_file(Path(file), key, generator)
    owner, _, inner = name.partition("/")
    if owner in kept_names(generator):
        return kept_set(generator, owner)[inner or 0]
    listed = ", ".join(direction_names(generator)) or "none for this generator"
    raise InputError(f"Unknown direction {name!r}. Known: {listed}; or give a {', '.join(FILES)} file.")


def _of_file(path: Path, key: str | None, generator: AbstractGenerator) -> LinearDirection:
    try:
        found = DirectionSet.load(path)
    except CheckpointError:
        return LinearDirection(array_file(path, generator))
    if found.fingerprint != generator.fingerprint:
        raise InputError(f"The directions in {path} were found for another generator; find them again for this one.")
    if key is None and len(found) > 1:
        raise InputError(f"{path} holds {len(found)} directions; say which: {path}#{next(iter(found.directions))}.")
    return found[0 if key is None else key]


def caption(direction: Any) -> str:
    """What a direction is called on pictures and in the names of files."""
    if isinstance(direction, Mapping):
        return "+".join(caption(name) for name in direction)
    if not isinstance(direction, (str, Path)):
        return "direction"
    name, tail = str(direction), ""
    for pattern, mark in ((_SLOTS, "@"), (_KEY, "#")):
        found = None if Path(name).suffix in FILES else pattern.fullmatch(name)
        if found:
            name, tail = found[1], f"{mark}{found[2]}{tail}"
    return (Path(name).stem if Path(name).suffix in FILES else name) + tail

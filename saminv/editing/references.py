"""Directions of every kind by name: bundled, found, of published files, as tensors, in some slots, and several at once.

A name is ``NAME``, ``class:K`` for the change to class K, ``NAME#KEY`` for one of several in a file, each followed by
``@SLOTS`` for some style slots only: ``car_hue``, ``sefa/3``, ``class:7``, ``ganspace/0@0-3``, ``ffhq_pca.pt#10@7-9``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .._errors import CheckpointError, InputError
from ..generators import AbstractGenerator
from .change import AbstractDirection, LinearDirection, Together, parse_slots
from .directions import array_direction, array_file, bundled_direction, class_direction, direction_names
from .published import SUFFIXES, read_published
from .sets import DirectionSet, kept_names, kept_set

FILES = (*SUFFIXES, ".safetensors")
_SLOTS = re.compile(r"(.+)@([\d,-]+)")
_KEY = re.compile(r"(.+)#([^#/]+)")
_CLASS = re.compile(r"class:(\d+)")


def find_direction(direction: Any, generator: AbstractGenerator, label: Any = None) -> AbstractDirection:
    """Turn anything that says a direction into one.

    Args:
        direction: A name as above, with a file (.npy, .npz, .pt, .safetensors) in place of NAME if you like; an array
            `[D]`, `[L, D]`, `[1, D]` or `[1, L, D]`; such arrays of parts of the styles by their sites, as in
            ``{"z": [Z]}`` or ``{"class": [L, E]}``; a direction; or several at once, as a table from name to share, or
            pairs of a direction and a share of the strength.
        generator: That the direction is for.
        label: From which "class:K" starts.

    Raises:
        InputError: For an unknown name, or a direction that does not fit the generator.
        CheckpointError: For a file that cannot be read.
    """
    if isinstance(direction, AbstractDirection):
        return direction
    if isinstance(direction, (str, Path)):
        return _named(str(direction), generator, label)
    shares = _shares(direction)
    if shares is not None:
        return Together(tuple((find_direction(part, generator, label), share) for part, share in shares))
    return LinearDirection(array_direction(direction, generator))


def resolve_direction(direction: Any, generator: AbstractGenerator, label: Any = None) -> Tensor:
    """Turn anything that says one change of the styles into that change `[1, L, D]` for strength 1.

    Args:
        direction: As for :func:`find_direction`, but not several at once.
        generator: Gives L and D.
        label: From which "class:K" starts.

    Raises:
        InputError: For an unknown name, an array that does not fit or is not finite, or a direction that is more than
            one change of the styles.
        CheckpointError: For a file that cannot be read.
    """
    found = find_direction(direction, generator, label)
    if not isinstance(found, LinearDirection) or found.channels:
        raise InputError(
            f"The direction {direction!r} is no tensor: it depends on the styles, changes channels, or is several."
        )
    return found.styles[None].to(generator.device, generator.dtype)


def _shares(direction: Any) -> list[tuple[Any, float]] | None:
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


def _named(name: str, generator: AbstractGenerator, label: Any) -> AbstractDirection:
    slots = _SLOTS.fullmatch(name)
    if slots and not Path(name).is_file():
        return _whole(slots[1], generator, label).in_slots(parse_slots(slots[2], generator.num_styles))
    return _whole(name, generator, label)


def _whole(name: str, generator: AbstractGenerator, label: Any) -> AbstractDirection:
    """A direction in all of its slots."""
    known = bundled_direction(name, generator)
    if known is not None:
        return LinearDirection(known)
    if number := _CLASS.fullmatch(name):
        return LinearDirection(class_direction(generator, label, int(number[1])))
    keyed = None if Path(name).is_file() else _KEY.fullmatch(name)
    file, key = (keyed[1], keyed[2]) if keyed else (name, None)
    if Path(file).suffix in SUFFIXES:
        return read_published(file, generator, key)
    if Path(file).suffix == ".safetensors":
        return _of_file(Path(file), key, generator)
    owner, _, inner = name.partition("/")
    if owner in kept_names(generator):
        return kept_set(generator, owner)[inner or 0]
    raise InputError(f"Unknown direction {name!r}. {_known(name, generator)}; or give a {', '.join(FILES)} file.")


def _known(name: str, generator: AbstractGenerator) -> str:
    """What a name that is none may have meant, and what there is; of a set its first and last direction."""
    names = direction_names(generator)
    spans = [kept_set(generator, kept).references for kept in kept_names(generator)]
    in_sets = {reference for span in spans for reference in span}
    listed = [known for known in names if known not in in_sets]
    listed += [span[0] if len(span) == 1 else f"{span[0]} to {span[-1]}" for span in spans if span]
    listed += ["class:K for class K"] if generator.label_dim else []
    close = difflib.get_close_matches(name.partition("=")[0], names, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(listed) or 'none for this generator'}"


def _of_file(path: Path, key: str | None, generator: AbstractGenerator) -> LinearDirection:
    try:
        found = DirectionSet.load(path)
    except CheckpointError:
        return LinearDirection(array_file(path, generator, key))
    if found.fingerprint != generator.fingerprint:
        raise InputError(f"The directions in {path} were found for another generator; find them again for this one.")
    if key is None and len(found) > 1:
        raise InputError(f"{path} holds {len(found)} directions; say which: {path}#{next(iter(found.directions))}.")
    return found[0 if key is None else key]


def signed(strength: float) -> str:
    """A strength with its sign, where it has one."""
    return f"{strength:+g}" if strength else "0"


def _said(share: Any) -> str:
    """A share of the strength behind a name; a part of the styles has none."""
    return f"={share:g}" if isinstance(share, (int, float)) and share != 1 else ""


def caption(direction: Any) -> str:
    """What a direction is called on pictures and in the names of files."""
    if isinstance(direction, Mapping):
        return "+".join(f"{caption(name)}{_said(share)}" for name, share in direction.items())
    if not isinstance(direction, (str, Path)):
        return "direction"
    name, tail = str(direction), ""
    for pattern, mark in ((_SLOTS, "@"), (_KEY, "#")):
        found = None if Path(name).suffix in FILES else pattern.fullmatch(name)
        if found:
            name, tail = found[1], f"{mark}{found[2]}{tail}"
    return (Path(name).stem if Path(name).suffix in FILES else name) + tail

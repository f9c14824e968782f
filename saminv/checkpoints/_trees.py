"""Walks over what a file holds: modules, tables of arrays, settings; and the words for it in messages."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .._errors import CheckpointError
from ._arrays import StoredArray
from ._limits import Budget
from ._pickle import Record

Table = dict[str, StoredArray]
DEEPEST = 32
MOST_PARTS = 1000
MOST_CONTAINERS = 2000
NAMESPACE = "argparse.Namespace"
_COLLECTIONS = ("_parameters", "_buffers", "_modules")


def is_module(value: Any) -> bool:
    """Whether a value is a torch module that was saved whole."""
    return isinstance(value, Record) and all(isinstance(value.state.get(name), dict) for name in _COLLECTIONS)


def submodule(module: Record, path: str) -> Record | None:
    """A module inside of another one, None where there is none."""
    for name in path.split("."):
        found = module.state["_modules"].get(name)
        if not is_module(found):
            return None
        module = found
    return module


def module_table(module: Record, budget: Budget, prefix: str = "", depth: int = 0) -> Table:
    """Parameters and buffers of a module by the names of its state dictionary."""
    if depth > DEEPEST:
        raise CheckpointError(f"its modules nest deeper than {DEEPEST} levels")
    found: Table = {}
    fleeting = module.state.get("_non_persistent_buffers_set", ())
    for kind in ("_parameters", "_buffers"):
        for name, value in module.state[kind].items():
            budget.step()
            if value is None or (kind == "_buffers" and name in fleeting):
                continue
            if not isinstance(value, StoredArray):
                raise CheckpointError(f"its {prefix}{name} is a {kind_of(value)}, not an array")
            found[f"{prefix}{name}"] = value
    for name, value in module.state["_modules"].items():
        budget.step()
        if is_module(value):
            found |= module_table(value, budget, f"{prefix}{name}.", depth + 1)
    return found


def table_of(value: Any) -> Table | None:
    """A state dictionary without the prefix of data-parallel training; None if a value is none."""
    if not isinstance(value, Mapping) or not value:
        return None
    arrays = {name: array for name, array in value.items() if array is not None}
    if not arrays or not all(type(name) is str and isinstance(array, StoredArray) for name, array in arrays.items()):
        return None
    if all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    return arrays


def under(table: Mapping[str, StoredArray], prefix: str) -> Table:
    """The arrays whose name has a prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in table.items() if name.startswith(prefix)}


def gather(table: Mapping[str, StoredArray | float | int], budget: Budget) -> dict[str, Tensor]:
    """Tensors of a table; each is a view of the file where it can be. Numbers become tensors without dimensions."""
    found = {}
    for name, value in table.items():
        if isinstance(value, StoredArray):
            budget.array(value.nbytes)
            found[name] = value.tensor()
        else:
            found[name] = torch.tensor(value)
    return found


def plain(value: Any) -> Any:
    """Settings as plain values. What is none of them is left out of a container, and named where it stands alone.

    A file can put a container into itself, or into another one many times, so depth and count are bounded.
    """
    return _plain(value, itertools.count(), DEEPEST)


def _plain(value: Any, visited: Iterator[int], depth: int) -> Any:
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, Record) and value.kind.startswith("pathlib."):
        return "/".join(str(part) for part in value.arguments[:MOST_PARTS] if isinstance(part, str))
    if isinstance(value, Record) and value.kind == NAMESPACE:
        value = value.state
    if not isinstance(value, (Mapping, list, tuple)) or depth == 0 or next(visited) > MOST_CONTAINERS:
        return kind_of(value)
    if isinstance(value, Mapping):
        entries = itertools.islice(value.items(), MOST_PARTS)
        return {key: _plain(item, visited, depth - 1) for key, item in entries if type(key) is str and _is_plain(item)}
    return [_plain(item, visited, depth - 1) for item in value[:MOST_PARTS]]


def _is_plain(value: Any) -> bool:
    if isinstance(value, Record):
        return value.kind == NAMESPACE or value.kind.startswith("pathlib.")
    return isinstance(value, (str, int, float, bool, type(None), Mapping, list, tuple))


def settings_of(value: Any) -> dict[str, Any]:
    """The settings in a dictionary or namespace; none where it is neither."""
    found = plain(value)
    return found if isinstance(found, dict) else {}


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    if isinstance(value, Record):
        return value.kind.rsplit(".", 1)[-1]
    names = {StoredArray: "array", dict: "dictionary", str: "text", type(None): "nothing"}
    return names.get(type(value), type(value).__name__)


def describe(value: Any) -> str:
    """What a file holds, in words that fit into a message."""
    if isinstance(value, StoredArray):
        return f"an array of shape {list(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dictionary of {listed(value)}" if value else "an empty dictionary"
    if isinstance(value, (list, tuple)):
        return f"a {kind_of(value)} of {len(value):,}: {listed(map(kind_of, value[:8]))}" if value else "nothing in it"
    return f"a {kind_of(value)}"


def listed(names: Iterable[Any], most: int = 6) -> str:
    """The first of some names."""
    found = [str(name)[:60] for name in names]
    return ", ".join(found[:most]) + (f" and {len(found) - most:,} more" if len(found) > most else "")


def check_numbers(arrays: Mapping[str, Tensor]) -> None:
    """Make sure that all parameters are numbers of floating point, and finite ones.

    Raises:
        CheckpointError: If an array is of another type, or has a value that is infinite, not a number, or too large for
            float32; names the first one.
    """
    largest = torch.finfo(torch.float32).max
    for name, tensor in arrays.items():
        if not tensor.is_floating_point():
            raise CheckpointError(f"its {name} is of the type {tensor.dtype}, where floating-point numbers are needed")
        if tensor.numel():
            # Extremes of an array with something that is not a number are none either.
            low, high = (float(extreme) for extreme in tensor.aminmax())
            if not (-largest <= low and high <= largest):
                raise CheckpointError(f"its {name} has values that are not finite")


def printable(text: object) -> str:
    """A text of a file as a terminal may show it: what controls it, or cannot be shown, is spelled out."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(text))

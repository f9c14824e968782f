"""Files of the published SAM invertibility networks: one file for inference, or the pieces that training leaves.

The arrays are handed on under their published names. Nothing in a file is executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .._errors import CheckpointError
from ._contents import read_contents
from ._trees import gather, table_of

Arrays = dict[str, Tensor]
BASE = "sd_base"
_PIECE = re.compile(r"(\d+)_(?:main|head_(.+))\.pt")
_BASE_NEEDS = ("backbone.conv1.weight", "aspp.conv1.weight", "decoder.last_conv.8.weight")
_HEAD_NEEDS = ("m.0.weight", "m.1.running_var", "m.3.weight")


def read_sam_invertibility(path: str | Path) -> tuple[Arrays, dict[str, Arrays]]:
    """Read a published invertibility network.

    Args:
        path: The single file for inference; a piece ``NNN_main.pt`` of the training script, beside which its heads
            ``NNN_head_<space>.pt`` lie; or a folder of such pieces, of which the latest are read.

    Returns:
        Arrays of the shared part, and those of each head by space, the most editable space first.

    Raises:
        CheckpointError: If a file is missing, damaged, holds code, or is no such network; the message says what lacks.
    """
    path = Path(path)
    if path.is_dir() or _PIECE.fullmatch(path.name):
        base, heads = _read_pieces(path)
    else:
        base, heads = _read_single(path)
    _check(base, _BASE_NEEDS, f"{path}: the shared part")
    for space, head in heads.items():
        _check(head, _HEAD_NEEDS, f"{path}: the head of {space}")
    return base, {space: heads[space] for space in sorted(heads, key=_order)}


def _read_single(path: Path) -> tuple[Arrays, dict[str, Arrays]]:
    content = _load(path)
    if not isinstance(content, Mapping) or BASE not in content:
        kind = f"a table of {_names(content)}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise CheckpointError(f"{path} is no published invertibility network: it has no {BASE!r}, but is {kind}.")
    heads = {str(space): _arrays(value, f"{path}: {space}") for space, value in content.items() if space != BASE}
    if not heads:
        raise CheckpointError(f"{path} holds the shared part of a network, but no head of a space.")
    return _arrays(content[BASE], f"{path}: {BASE}"), heads


def _read_pieces(path: Path) -> tuple[Arrays, dict[str, Arrays]]:
    folder, asked = (path, None) if path.is_dir() else (path.parent, path.name.split("_")[0])
    try:
        found = [(match[1], match[2], file) for file in folder.iterdir() if (match := _PIECE.fullmatch(file.name))]
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error}") from error
    mains = {number for number, space, _ in found if space is None}
    if not mains or (asked is not None and asked not in mains):
        wanted = f"{asked or 'NNN'}_main.pt"
        raise CheckpointError(f"{folder} has no {wanted}; it has: {_listed(file.name for _, _, file in found)}.")
    number = asked or max(mains, key=int)
    heads = {space: file for k, space, file in found if k == number and space is not None}
    if not heads:
        raise CheckpointError(f"{folder} has {number}_main.pt, but no head of a space beside it: {number}_head_W+.pt.")
    main = folder / f"{number}_main.pt"
    return _arrays(_load(main), str(main)), {space: _arrays(_load(file), str(file)) for space, file in heads.items()}


def _load(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    try:
        contents = read_contents(path)
    except CheckpointError as error:
        raise CheckpointError(f"{path} is damaged, or holds more than plain arrays: {error}.") from error
    root = contents.root
    tables = root if isinstance(root, Mapping) else {}
    found = {name: table_of(value) for name, value in tables.items()}
    if any(table is not None for table in found.values()):
        return {name: gather(table, contents.budget) if table else tables[name] for name, table in found.items()}
    table = table_of(root)
    return root if table is None else gather(table, contents.budget)


def _arrays(value: Any, what: str) -> Arrays:
    """A state dict without the prefix that data-parallel training puts before its names."""
    if not isinstance(value, Mapping) or not value or not all(isinstance(v, Tensor) for v in value.values()):
        raise CheckpointError(f"{what} is no table of arrays, but a {type(value).__name__}.")
    return {str(name).removeprefix("module."): tensor for name, tensor in value.items()}


def _check(arrays: Arrays, needed: tuple[str, ...], what: str) -> None:
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise CheckpointError(f"{what} has no {', '.join(missing)}; it has: {_names(arrays)}.")


def _names(table: Mapping[Any, Any]) -> str:
    return _listed(str(name) for name in table)


def _listed(names: Any, most: int = 6) -> str:
    shown = sorted(names)
    return (", ".join(shown[:most]) + (", ..." if len(shown) > most else "")) or "nothing"


def _order(space: str) -> tuple[int, str]:
    """Sort key: spaces without a number first, then by number, which is the order of editability."""
    number = re.search(r"\d+", space)
    return (int(number[0]) if number else -1, space)

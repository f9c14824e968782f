"""Bundled weights and their cards: one safetensors file and one table of ``cards.toml`` each."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from .._errors import CheckpointError, InputError
from .._files import atomic_write

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CARDS = "cards.toml"
Figure = bool | int | float | str


@dataclass(frozen=True)
class Card:
    """What is known about a bundled weight file.

    Attributes:
        file: File name in this folder.
        sha256: SHA-256 of the file in hexadecimal.
        kind: What the weights are, for example "StyleGAN2 generator, 128x128".
        licence: Licence of the weights.
        data: What they were trained on.
        trained_by: The command that made them.
        description: A sentence or two.
        figures: Measured values by name.
    """

    file: str
    sha256: str
    kind: str
    licence: str
    data: str
    trained_by: str
    description: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)


def cards(folder: str | Path | None = None) -> dict[str, Card]:
    """Return the cards of the bundled weights by name; ``folder`` is the package's own unless given.

    Raises:
        CheckpointError: If the list of cards is missing or damaged.
    """
    place = _place(folder) / CARDS
    try:
        tables = tomllib.loads(place.read_text(encoding="utf-8"))
        return {name: Card(**table) for name, table in tables.items()}
    except OSError as error:
        raise CheckpointError(
            f"The list of weights {place} cannot be read ({error}). Install the package again."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError) as error:
        raise CheckpointError(f"The list of weights {place} is damaged: {error}") from error


def load_named(name: str, path: str | Path | None = None) -> tuple[str, dict[str, Tensor], dict[str, str]]:
    """Return what the weights are called in messages, their tensors and their metadata: of a file, or the bundled ones.

    Raises:
        CheckpointError: If the file cannot be read, or there are no such bundled weights.
    """
    if path is None:
        return f"the bundled {name}", *load_bundled(name)
    try:
        return str(path), *read_safetensors(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def load_bundled(name: str, folder: str | Path | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of the bundled weights ``name``, after verifying the checksum on their card.

    Raises:
        CheckpointError: If there are no such weights, or the file is missing or is not the one that the card describes.
    """
    known = cards(folder)
    if name not in known:
        raise CheckpointError(f"No weights {name!r} are bundled. There are: {', '.join(known) or 'none'}.")
    card = known[name]
    place = _place(folder) / card.file
    try:
        content = place.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"The bundled file {card.file} cannot be read ({error}). Install the package again, "
            f"or train it: {card.trained_by}"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != card.sha256:
        raise CheckpointError(
            f"The bundled file {card.file} is not the one on its card: SHA-256 {digest}, expected {card.sha256}. "
            f"Install the package again, or train it: {card.trained_by}"
        )
    return read_safetensors(content, card.file)


def read_safetensors(content: bytes, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata in the bytes of a safetensors file; ``what`` names it in errors.

    Raises:
        CheckpointError: If the bytes are no safetensors file.
    """
    import safetensors
    from safetensors.torch import load

    try:
        tensors = load(content)
        (length,) = struct.unpack_from("<Q", content)
        header = json.loads(content[8 : 8 + length])
    except (safetensors.SafetensorError, struct.error, ValueError) as error:
        raise CheckpointError(f"{what} is damaged or no safetensors file: {error}") from error
    return tensors, dict(header.get("__metadata__", {}))


def write_card(
    name: str,
    *,
    kind: str,
    licence: str,
    data: str,
    trained_by: str,
    description: str = "",
    figures: Mapping[str, Figure] | None = None,
    folder: str | Path | None = None,
) -> Card:
    """Write or replace the card of ``<name>.safetensors``, which must lie in the folder already; returns the card.

    Raises:
        InputError: If the name cannot be a table's name.
        CheckpointError: If the weight file is not there.
        OutputError: If the list of cards cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise InputError(f"{name!r} cannot name weights; use letters, digits, '-' and '_'.")
    root = Path(__file__).parent if folder is None else Path(folder)
    file = root / f"{name}.safetensors"
    if not file.is_file():
        raise CheckpointError(f"There is no file {file}; save the weights there before writing their card.")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    card = Card(file.name, digest, kind, licence, data, trained_by, description, dict(figures or {}))
    known = {**(cards(folder) if (root / CARDS).is_file() else {}), name: card}
    _write_cards(root / CARDS, known)
    return card


def _write_cards(path: Path, known: Mapping[str, Card]) -> None:
    tables = [_table(name, known[name]) for name in sorted(known)]
    text = "\n".join([_heading(path), *tables])
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _heading(path: Path) -> str:
    """The comment at the top of the present list."""
    if not path.is_file():
        return ""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if line.startswith("#"))


def _table(name: str, card: Card) -> str:
    lines = [f"[{name}]"]
    for attribute in fields(Card):
        value = getattr(card, attribute.name)
        if isinstance(value, Mapping):
            value = "{ " + ", ".join(f"{_toml(str(k))} = {_toml(v)}" for k, v in value.items()) + " }"
        else:
            value = _toml(value)
        lines.append(f"{attribute.name} = {value}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """A string, number or truth value as TOML, whose strings are written like those of JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, (int, float)):
        return repr(value)
    raise InputError(f"A card holds strings, numbers and truth values; {value!r} is a {type(value).__name__}.")


def _place(folder: str | Path | None) -> Any:
    return resources.files(__package__) if folder is None else Path(folder)

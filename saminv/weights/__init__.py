"""Weights: the files that the package carries, their cards, and the fetching of files that it does not carry.

What is here: ``*.safetensors`` bundled with the package, ``cards.toml`` (one card per file: checksum, licence, data,
the command that trained it, figures), :func:`load_bundled`, :func:`load_named`, and, for other files, :func:`fetch` and
:func:`obtain`.

How to add one: train it by a command of the package, save it here as ``<name>.safetensors`` with its configuration in
the metadata, and call :func:`write_card`. A file without a card is not loaded.

May import: the ground floor.
"""

from __future__ import annotations

from ._fetch import fetch, obtain, weights_folder
from ._load import Card, cards, load_bundled, load_named, read_safetensors, write_card

__all__ = [
    "Card",
    "cards",
    "fetch",
    "load_bundled",
    "load_named",
    "obtain",
    "read_safetensors",
    "weights_folder",
    "write_card",
]

"""Weights: the files that the package carries, their cards, and the fetching of files that it does not carry.

What is here: ``*.safetensors`` bundled with the package, ``cards.toml`` (one card per file: checksum, licence, data,
the command that trained it, figures), :func:`load_bundled`, :func:`load_named`; for other files, :func:`fetch` and
:func:`obtain`; published networks by name: their table (:data:`NETWORKS`), :func:`fetch_network`, and what is known of
those on this machine (:func:`read_pins`).

How to add one: train it by a command of the package, save it here as ``<name>.safetensors`` with its configuration in
the metadata, and call :func:`write_card`. A file without a card is not loaded. A published network is a row in
``networks.py``.

May import: the ground floor.
"""

from __future__ import annotations

from ._fetch import fetch, obtain, weights_folder
from ._load import Card, cards, load_bundled, load_named, read_safetensors, write_card
from ._local import fetch_network, network_place
from ._pins import Pin, read_pins
from .networks import NETWORKS, Network, NetworkFile

__all__ = [
    "NETWORKS",
    "Card",
    "Network",
    "NetworkFile",
    "Pin",
    "cards",
    "fetch",
    "fetch_network",
    "load_bundled",
    "load_named",
    "network_place",
    "obtain",
    "read_pins",
    "read_safetensors",
    "weights_folder",
    "write_card",
]

"""``saminv fetch``: published networks by name."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .._errors import InputError
from ..editing._summary import align
from ..weights import NETWORKS, fetch_network, network_place, read_pins
from ..weights.networks import FORMS, Network
from ._console import command, on_terminal


def add(commands: Any) -> None:
    """Add the parser of the command."""
    add = command(
        commands,
        "fetch",
        _run,
        "Fetch a published network.\n\nThe network can then be named wherever a generator is asked for. Its SHA-256 is "
        "written to networks.lock in the\nfolder of weights (SAMINV_WEIGHTS), and every later use is checked against "
        "it. What you may do with the network is\nfor its publisher to say: see the licence. An interrupted fetch goes "
        "on where it stopped.",
    ).add_argument
    add("name", nargs="?", metavar="NAME", help="of the network, see --list")
    add("--list", action="store_true", help="list the networks, and which of them are here")
    add("--to", type=Path, metavar="FILE", help="where to put it, instead of the folder of weights")
    add("--from", type=Path, dest="given", metavar="FILE", help="where it is already; nothing is fetched")
    add("--accept", action="store_true", help="take it although it is another file than at its first use")
    add("--json", action="store_true", help="print JSON")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.list == (arguments.name is not None):
        raise InputError("saminv fetch needs either the name of a network or --list.")
    return _list(arguments) if arguments.list else _fetch(arguments)


def _fetch(arguments: argparse.Namespace) -> int:
    name, network = arguments.name, NETWORKS.get(arguments.name)
    fetch_network(name, to=arguments.to, given=arguments.given, accept=arguments.accept, progress=on_terminal())
    facts = _facts(name, network)
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return 0
    width = max(map(len, facts)) + 2
    for key, value in facts.items():
        print(f"{key.ljust(width)}{_text(value)}")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    found = {name: _facts(name, NETWORKS.get(name)) for name in NETWORKS}
    if arguments.json:
        print(json.dumps(list(found.values()), indent=2))
        return 0
    width = max(len(facts["trained on"]) for facts in found.values())
    lines = [["name", "pixels", "MB", "here", f"{'trained on'.ljust(width)}  licence"]]
    for facts in found.values():
        size, here = facts["size (MB)"], "yes" if facts["place"] else "no"
        last = f"{facts['trained on'].ljust(width)}  {facts['licence']}"
        lines.append([facts["name"], facts["pixels"], "?" if size is None else str(size), here, last])
    print(align(lines))
    return 0


def _facts(name: str, network: Network) -> dict[str, Any]:
    place, pin = network_place(name), read_pins().get(name)
    height, width = network.image_size
    return {
        "name": name,
        "place": None if place is None else str(place),
        "sha256": None if pin is None else dict(pin.sha256),
        "pinned": None if pin is None else pin.since,
        "pixels": f"{width} x {height}",
        "trained on": network.data,
        "form": FORMS[network.form],
        "size (MB)": network.size,
        "licence": network.licence,
        "page": network.page,
        "paper": f"arXiv {network.paper}",
        "urls": [file.url for file in network.files],
    }


def _text(value: Any) -> str:
    """A fact on one line."""
    if isinstance(value, dict):
        return ", ".join(value.values() if len(value) == 1 else (f"{digest} {file}" for file, digest in value.items()))
    return ", ".join(value) if isinstance(value, list) else "not known" if value is None else str(value)

"""What each named network was when it was first used here: a lock file in the folder of weights."""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .._errors import CheckpointError
from .._files import atomic_write, ensure_folder, locked
from ._fetch import weights_folder
from ._load import _toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LOCK = "networks.lock"
HEADING = """\
# What each named network was when it was first used here. Every later use is checked against it.
# To accept another file: saminv fetch NAME --accept
"""


@dataclass(frozen=True)
class Pin:
    """A network on this machine.

    Attributes:
        path: Its file, or the folder of its files.
        sha256: SHA-256 of each file in hexadecimal, by the file's name.
        since: Day of the first use, as 2026-01-31.
    """

    path: Path
    sha256: Mapping[str, str]
    since: str


def read_pins() -> dict[str, Pin]:
    """The networks that have been used here, by name.

    Raises:
        CheckpointError: If the lock file is damaged.
    """
    place = weights_folder() / LOCK
    try:
        tables = tomllib.loads(place.read_text(encoding="utf-8"))
        return {name: _pin(table) for name, table in tables.items()}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"The list of checksums {place} cannot be read ({error}). Correct it, or delete it: then networks are "
            "trusted as they are at their next use."
        ) from error


def change_pin(name: str, change: Callable[[Pin | None], Pin]) -> None:
    """Replace what is known of a network by what ``change`` makes of it; other processes wait meanwhile.

    Raises:
        CheckpointError: If the lock file is damaged.
        OutputError: If it cannot be written.
    """
    folder = ensure_folder(weights_folder())
    with locked(folder / f"{LOCK}.lock"):
        pins = read_pins()
        pins[name] = change(pins.get(name))
        tables = [_table(name, pins[name]) for name in sorted(pins)]
        with atomic_write(folder / LOCK) as temporary:
            temporary.write_text("\n".join([HEADING, *tables]), encoding="utf-8")


def today() -> str:
    """The day, as a lock file writes it."""
    return datetime.date.today().isoformat()


def _pin(table: Mapping[str, object]) -> Pin:
    path, sha256, since = table["path"], table["sha256"], table["since"]
    if not (isinstance(path, str) and isinstance(since, str) and isinstance(sha256, dict) and sha256):
        raise TypeError("a network needs path, sha256 and since")
    for digest in sha256.values():
        if not re.fullmatch(r"[0-9a-f]{64}", str(digest)):
            raise ValueError(f"{digest!r} is no SHA-256")
    return Pin(weights_folder() / path, sha256, since)


def _table(name: str, pin: Pin) -> str:
    folder = weights_folder()
    # Inside the folder of weights, so that it can be moved.
    path = pin.path.relative_to(folder) if pin.path.is_relative_to(folder) else pin.path
    heading = name if re.fullmatch(r"[\w-]+", name, re.ASCII) else _toml(name)
    digests = ", ".join(f"{_toml(file)} = {_toml(digest)}" for file, digest in pin.sha256.items())
    return f"[{heading}]\npath = {_toml(path.as_posix())}\nsince = {_toml(pin.since)}\nsha256 = {{ {digests} }}\n"

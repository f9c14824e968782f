"""Sets of directions that were found for a generator, their files, and the folder where they are kept."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from .._errors import CheckpointError, InputError
from .._files import atomic_write, ensure_folder
from ..generators import AbstractGenerator
from .change import LinearDirection

FORMAT = "saminv.directions.1"
FOLDER_VARIABLE = "SAMINV_DIRECTIONS"
_NAME = re.compile(r"[\w.+-]+")


@dataclass(frozen=True, eq=False)
class DirectionSet:
    """Directions of one generator that were found together.

    Attributes:
        name: Of the set; letters, digits and ``._+-``.
        method: "sefa", "ganspace", "interfacegan", "regression" or "text".
        fingerprint: Of the generator.
        directions: By name within the set, in order.
        slots: Style slots that they change.
        values: Numbers by direction, `[K]` each: "variance" (share of the variance explained), "eigenvalue",
            "deviation" (length of strength 1 in w), "accuracy" (on samples held out), "r2".
        settings: How they were found; plain JSON values.
    """

    name: str
    method: str
    fingerprint: str
    directions: Mapping[str, LinearDirection]
    slots: tuple[int, ...]
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(f"{self.name!r} cannot name a set of directions; use letters, digits, '.', '-' and '_'.")

    def __len__(self) -> int:
        return len(self.directions)

    @property
    def references(self) -> list[str]:
        """Names under which the directions are known once the set is kept: "sefa/0"."""
        return [f"{self.name}/{name}" for name in self.directions]

    def __getitem__(self, key: str | int) -> LinearDirection:
        """A direction by its name, or by its position.

        Raises:
            InputError: If there is none.
        """
        names = list(self.directions)
        if str(key) in self.directions:
            return self.directions[str(key)]
        if str(key).isdigit() and int(key) < len(names):
            return self.directions[names[int(key)]]
        raise InputError(f"The set {self.name!r} has no direction {key!r}. It has: {_listed(names)}.")

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically.

        Raises:
            OutputError: If it cannot be written.
        """
        arrays = {f"styles/{name}": direction.styles for name, direction in self.directions.items()}
        for name, direction in self.directions.items():
            arrays |= {f"channels/{name}/{layer}": part for layer, part in direction.channels.items()}
        first = next(iter(self.directions.values()), None)
        header = {
            "format": FORMAT,
            "name": self.name,
            "method": self.method,
            "generator_fingerprint": self.fingerprint,
            "directions": json.dumps(list(self.directions)),
            "layers": json.dumps(list(self.slots)),
            "slots_of_channels": json.dumps(dict(first.slots) if first else {}),
            "values": json.dumps({name: [float(v) for v in row] for name, row in self.values.items()}),
            "settings": json.dumps(dict(self.settings)),
        }
        plain = {name: array.detach().cpu().float().contiguous().clone() for name, array in arrays.items()}
        with atomic_write(path) as temporary:
            temporary.write_bytes(serialise(plain, header))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> DirectionSet:
        """Read a set.

        Raises:
            CheckpointError: If the file is missing, damaged, or no set of directions.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                header = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{path} is no readable file of directions: {error}") from error
        if header.get("format") != FORMAT:
            raise CheckpointError(f"{path} is no set of directions of saminv (format {header.get('format')!r}).")
        try:
            slots = json.loads(header["slots_of_channels"])
            names = json.loads(header["directions"])
            directions = {name: LinearDirection(*_parts(arrays, name), slots) for name in names}
            values, settings = json.loads(header["values"]), json.loads(header["settings"])
            if any(len(row) != len(names) for row in values.values()):
                raise ValueError(f"numbers for {len(names)} directions")
            layers = tuple(json.loads(header["layers"]))
            found = (header["name"], header["method"], header["generator_fingerprint"], directions, layers)
            return cls(*found, values, settings)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} is damaged: {error!r}. Find the directions again.") from error

    def keep(self) -> Path:
        """Write the set where directions of its generator are looked for by name; one of that name is replaced."""
        folder = ensure_folder(directions_folder() / self.fingerprint[:16])
        return self.save(folder / f"{self.name}.safetensors")


def _parts(arrays: Mapping[str, Tensor], name: str) -> tuple[Tensor, dict[str, Tensor]]:
    styles, prefix = arrays[f"styles/{name}"], f"channels/{name}/"
    if styles.dim() != 2 or not all(bool(torch.isfinite(array).all()) for array in arrays.values()):
        raise ValueError(f"the direction {name} is {list(styles.shape)} or not finite")
    return styles, {key[len(prefix) :]: array for key, array in arrays.items() if key.startswith(prefix)}


def directions_folder() -> Path:
    """Folder of kept directions: ``$SAMINV_DIRECTIONS``, else ``directions`` in the folder of caches of saminv."""
    if os.environ.get(FOLDER_VARIABLE):
        return Path(os.environ[FOLDER_VARIABLE]).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "saminv" / "directions"


def kept_names(generator: AbstractGenerator) -> list[str]:
    """Names of the sets that are kept for a generator."""
    folder = directions_folder() / generator.fingerprint[:16]
    return sorted(path.stem for path in folder.glob("*.safetensors")) if folder.is_dir() else []


def kept_set(generator: AbstractGenerator, name: str) -> DirectionSet:
    """A kept set by name.

    Raises:
        InputError: If there is none of that name.
        CheckpointError: If its file is damaged, or of another generator.
    """
    path = directions_folder() / generator.fingerprint[:16] / f"{name}.safetensors"
    if not path.is_file():
        known = _listed(kept_names(generator)) or "none yet; saminv directions find makes some"
        raise InputError(f"No set of directions {name!r} is kept for this generator. Kept: {known}.")
    found = DirectionSet.load(path)
    if found.fingerprint != generator.fingerprint:
        raise CheckpointError(f"{path} belongs to another generator; delete it and find the directions again.")
    return found


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")

"""What ``torch.save`` writes: an archive with a pickle and one member per storage, or, before, a run of pickles.

References from the pickle to storages are resolved here; the pickle itself goes through the interpreter of
``_pickle.py``, as everything does.
"""

from __future__ import annotations

import itertools
from typing import Any

from .._errors import CheckpointError
from ._archive import Archive
from ._arrays import Storage
from ._limits import MAX_NESTED, Budget
from ._pickle import unpickle
from ._stand_ins import Names, storage_type, unpack_count

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
PICKLE = "data.pkl"


def read_pickle(data: memoryview, budget: Budget) -> Any:
    """The object in a plain pickle, or in the run of pickles that ``torch.save`` wrote before version 1.6.

    Raises:
        CheckpointError: If it is damaged, refers to a name that is not on the list, or asks for too much.
    """
    return _Reader(budget).read(data)


def read_torch_archive(archive: Archive, budget: Budget) -> Any:
    """The object in an archive that ``torch.save`` wrote.

    Raises:
        CheckpointError: As :func:`read_pickle`, or if a storage is missing or has another size than the pickle says.
    """
    (main,) = (name for name in archive.members if name.split("/")[1:] == [PICKLE])
    folder = main.removesuffix(PICKLE)
    if any(name.startswith(f"{folder}code/") for name in archive.members):
        raise CheckpointError("it is a TorchScript program, which is code; save the state dictionary of the module")
    order = f"{folder}byteorder"
    swapped = order in archive.members and bytes(archive.read(order)) == b"big"
    storages: dict[str, Storage] = {}

    def resolve(reference: Any) -> Storage:
        storage, key = _announced(reference, storages, swapped)
        if storage.data is None:
            storage.fill(archive.read(f"{folder}data/{key}"))
        return storage

    return unpickle(archive.read(main), _Reader(budget).names.find, budget, resolve)[0]


class _Reader:
    """Reads the pickles of one file, those inside of others too.

    Attributes:
        names: The names that they may mention.
        level: How many pickles are around the one that is read.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget, self.level = budget, 0
        self.names = Names(budget, self.load_storage)

    def read(self, data: memoryview) -> Any:
        found, end = unpickle(data, self.names.find, self.budget)
        is_torch = type(found) is int and found == MAGIC
        return _legacy(data, end, self.names, self.budget) if is_torch else found

    def load_storage(self, content: Any) -> Storage:
        """The storage that torch saved inside of a pickle."""
        if self.level >= MAX_NESTED:
            raise CheckpointError(f"it has pickles inside of pickles, more than {MAX_NESTED} deep")
        if not isinstance(content, (bytes, memoryview)):
            raise CheckpointError("it has a storage that is not made of bytes")
        self.level += 1
        storage = self.read(memoryview(content))
        self.level -= 1
        if not isinstance(storage, Storage):
            raise CheckpointError(f"it has a {type(storage).__name__} where the bytes of a storage should be")
        return storage


def _legacy(data: memoryview, start: int, names: Names, budget: Budget) -> Any:
    """The object in a run of pickles: a magic number, a version, the machine, the object, keys; then the storages."""
    version, place = unpickle(data, names.find, budget, start=start)
    if version != PROTOCOL:
        raise CheckpointError("it was written by an unknown version of torch.save")
    machine, place = unpickle(data, names.find, budget, start=place)
    swapped = isinstance(machine, dict) and machine.get("little_endian") is False
    storages: dict[str, Storage] = {}
    found, place = unpickle(
        data, names.find, budget, lambda reference: _announced(reference, storages, swapped)[0], place
    )
    keys, place = unpickle(data, names.find, budget, start=place)
    if not isinstance(keys, list) or len(set(map(str, keys))) != len(keys):
        raise CheckpointError("its list of storages is damaged")
    for key in keys:
        storage = storages.get(str(key))
        if storage is None or storage.data is not None:
            raise CheckpointError(f"it has a storage {str(key)[:40]!r} that nothing refers to")
        if place + 8 > len(data) or unpack_count(data[place : place + 8]) != storage.numel:
            raise CheckpointError("it ends in the middle of its storages, or they have other sizes than it says")
        content = data[place + 8 : place + 8 + storage.nbytes]
        storage.fill(content)
        place += 8 + storage.nbytes
    missing = next((key for key, storage in storages.items() if storage.data is None), None)
    if missing is not None:
        raise CheckpointError(f"its storage {missing[:40]!r} is missing")
    return found


def _announced(reference: Any, storages: dict[str, Storage], swapped: bool) -> tuple[Storage, str]:
    """The storage that a reference is about, and its key."""
    if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
        raise CheckpointError("its pickle refers to something that is no storage")
    _, kind, key, _, count, *window = reference
    if not isinstance(key, str) or any(part is not None for part in window):
        raise CheckpointError("its pickle refers to a storage in an unknown way")
    dtype = storage_type(kind)
    if key not in storages:
        storages[key] = Storage(dtype, count, swapped=swapped)
    known = storages[key]
    if (known.dtype, known.numel) != (dtype, count):
        raise CheckpointError(f"its storage {key[:40]!r} is said to be of two kinds")
    return known, key


def is_torch_archive(archive: Archive) -> bool:
    """Whether an archive has the one pickle that ``torch.save`` writes."""
    return sum(name.split("/")[1:] == [PICKLE] for name in archive.members) == 1


def first_members(archive: Archive, most: int = 4) -> str:
    """Names of some members, for messages."""
    return ", ".join(itertools.islice(archive.members, most)) or "nothing"

"""A file of any kind as plain values, inert records and arrays that lie in it. The content decides, not the name."""

from __future__ import annotations

import ast
import json
import mmap
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .._errors import CheckpointError
from ._archive import Archive
from ._arrays import NumpyType, Storage, StoredArray, numpy_array
from ._limits import MAX_HEADER, MIB, Budget
from ._torch_files import first_members, is_torch_archive, read_pickle, read_torch_archive

_NPY = b"\x93NUMPY"
_SAFE_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_OTHERS = (
    (re.compile(rb"\s*(<!doctype html|<html|<head|<\?xml|<!--)", re.I), "is a web page, not what was to be fetched"),
    (re.compile(rb"version https://git-lfs"), "is a pointer of git-lfs; fetch the file itself with `git lfs pull`"),
    (re.compile(rb"\x89HDF"), "is an HDF5 file"),
    (re.compile(rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd"), "is a packed archive; unpack it first"),
    (re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF"), "is a picture"),
    (re.compile(rb"%PDF"), "is a PDF document"),
    (re.compile(rb"\x7fELF|MZ"), "is a program"),
    (re.compile(rb".{257}ustar", re.S), "is a tar archive; torch has not written such files since version 0.1"),
)
_OLD_PICKLE = re.compile(rb"[(\]}cIVSF][\x20-\x7e\n]")


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        container: How it is stored, for example "pickle" or "torch archive".
        root: Plain values, containers, records and arrays.
        budget: What may still be spent on it.
        metadata: Texts in the header of a safetensors file.
    """

    container: str
    root: Any
    budget: Budget
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_contents(path: Path) -> Contents:
    """Read a file without executing anything in it.

    Arrays are views of the file, whose pages are read when they are looked at; changes to them stay in memory.

    Raises:
        CheckpointError: If it is damaged, of another kind, hostile, or cannot be read; says what was found.
    """
    data = _mapped(path)
    budget = Budget(len(data))
    head = bytes(data[:512])
    if head.startswith(b"PK"):
        return _archived(Archive(data, budget), budget)
    if head.startswith(_NPY):
        return Contents("npy", _npy(data), budget)
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= len(data) - 8:
        return _safetensors(data, budget)
    for pattern, found in _OTHERS:
        if pattern.match(head):
            raise CheckpointError(f"it {found}")
    if head[:1] == b"\x80" or (_OLD_PICKLE.match(head) and bytes(data[-1:]) == b"."):
        return Contents("pickle", read_pickle(data, budget), budget)
    kind = "a text" if _is_text(head) else "of an unknown kind"
    raise CheckpointError(f"it is {kind}: it begins with {head[:24]!r}")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The table in a small JSON file beside a checkpoint; ``what`` it is to the checkpoint, for messages.

    Raises:
        CheckpointError: If it is not there, or is damaged.
    """
    try:
        if not path.is_file() or path.stat().st_size > MIB:
            raise CheckpointError(f"{what} {path.name} must lie beside it, and does not")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{what} {path.name} is damaged ({str(error)[:80]})") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{what} {path.name} is no table")
    return found


def _mapped(path: Path) -> memoryview:
    try:
        if not path.is_file():
            raise CheckpointError("there is no such file" if not path.exists() else "it is not a regular file")
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise CheckpointError("it is empty")
            # Copy on write: nothing can change the file, and torch takes the memory for writable.
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"it cannot be opened ({error})") from error


def _is_text(head: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\r\n" for byte in head)


def _archived(archive: Archive, budget: Budget) -> Contents:
    if is_torch_archive(archive):
        return Contents("torch archive", read_torch_archive(archive, budget), budget)
    names = list(archive.members)
    if all(name.endswith(".npy") for name in names):
        return Contents("npz", {name.removesuffix(".npy"): _npy(archive.read(name)) for name in names}, budget)
    raise CheckpointError(f"it is an archive of something else: {first_members(archive)}")


def _npy(data: memoryview) -> StoredArray:
    """An array in numpy's own format."""
    if len(data) < 12 or bytes(data[:6]) != _NPY or data[6] not in (1, 2, 3):
        raise CheckpointError("its array has an unknown header")
    begin = 10 if data[6] == 1 else 12
    length = int.from_bytes(data[8:begin], "little")
    if length > MAX_HEADER or begin + length > len(data):
        raise CheckpointError("it ends in the header of its array")
    try:
        header = ast.literal_eval(str(data[begin : begin + min(length, 4096)], "latin-1").strip())
        kind, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise CheckpointError("the header of its array is damaged") from error
    if not isinstance(kind, str) or NumpyType(kind).dtype is None:
        raise CheckpointError(f"it must be an array of numbers, not of {str(kind)[:40]}")
    return numpy_array(shape, NumpyType(kind), bool(fortran), data[begin + length :])


def _safetensors(data: memoryview, budget: Budget) -> Contents:
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER:
        raise CheckpointError(f"its header has {length:,} bytes")
    try:
        header = json.loads(bytes(data[8 : 8 + length]))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"it is damaged or no safetensors file ({error})") from error
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise CheckpointError("it is damaged or no safetensors file: its metadata are no texts")
    body = data[8 + length :]
    arrays, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: _begin(item[1])):
        budget.step()
        array, begin, stop = _safe_array(entry, body)
        if begin != end:
            raise CheckpointError(f"it is damaged or no safetensors file: {name[:80]!r} does not follow its neighbour")
        arrays[name], end = array, stop
    if end != len(body):
        raise CheckpointError(f"it is damaged or no safetensors file: {len(body) - end:,} bytes belong to no array")
    return Contents("safetensors", arrays, budget, metadata)


def _begin(entry: Any) -> int:
    try:
        return int(entry["data_offsets"][0])
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError("it is damaged or no safetensors file: an entry says no place") from error


def _safe_array(entry: Mapping[str, Any], body: memoryview) -> tuple[StoredArray, int, int]:
    try:
        dtype, shape, (begin, end) = _SAFE_TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if type(begin) is not int or type(end) is not int or not 0 <= begin <= end <= len(body):
            raise ValueError("an array reaches beyond the file")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"it is damaged or no safetensors file ({error})") from error
    array = StoredArray(None, 0, shape)
    array.place(Storage(dtype, array.numel, body[begin:end]), 0, shape)
    return array, begin, end

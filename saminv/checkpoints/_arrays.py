"""Arrays as files hold them: raw bytes, a type, a shape and strides, checked against each other.

Nothing is copied until a tensor is asked for, and then only what must be: a tensor is a view of the bytes of the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._errors import CheckpointError

Bytes = bytes | bytearray | memoryview

STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
"""Types of torch's storages by class name."""
_NUMPY = {
    "b1": torch.bool,
    "?": torch.bool,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
    "u2": torch.uint16,
    "u4": torch.uint32,
    "u8": torch.uint64,
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
}
_CODE = re.compile(r"([<>=|]?)(\w+|\?)")
_OPAQUE = "OSUVMmc"
MAX_DIMENSIONS = 16


class NumpyType:
    """A dtype of numpy.

    Attributes:
        code: For example "f4".
        order: "<", ">", "=" or "|".
        dtype: Its counterpart, None for texts, objects and other things that are no numbers.
    """

    __slots__ = ("code", "dtype", "order")

    def __init__(self, code: str) -> None:
        match = _CODE.fullmatch(code)
        if match is None or (match[2] not in _NUMPY and match[2][:1] not in _OPAQUE):
            raise CheckpointError(f"it has arrays of the unknown type {code[:40]!r}")
        self.order, self.code = match[1] or "=", match[2]
        self.dtype = _NUMPY.get(match[2])

    @property
    def swapped(self) -> bool:
        """Whether the most significant byte comes first."""
        return self.order == ">"

    def set_state(self, state: Any) -> None:
        """Take over what ``numpy.dtype.__setstate__`` would get."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise CheckpointError("a type of its arrays is described in an unknown way")
        self.order = state[1]


class Storage:
    """A run of numbers in a file.

    Attributes:
        dtype: Their type.
        numel: Their count.
        data: Their bytes; None where the file has not come to them yet.
        swapped: Whether the most significant byte comes first.
    """

    __slots__ = ("data", "dtype", "numel", "swapped")

    def __init__(self, dtype: torch.dtype, numel: int, data: Bytes | None = None, swapped: bool = False) -> None:
        if not _is_count(numel):
            raise CheckpointError("a storage has an impossible size")
        self.dtype, self.numel, self.swapped = dtype, numel, swapped
        self.data: Bytes | None = None
        if data is not None:
            self.fill(data)

    @property
    def nbytes(self) -> int:
        """Its length in bytes."""
        return self.numel * self.dtype.itemsize

    def fill(self, data: Bytes) -> None:
        """Give it its bytes, of which there must be exactly as many as it says."""
        if len(data) != self.nbytes:
            raise CheckpointError(f"a storage has {len(data):,} bytes instead of {self.nbytes:,}")
        self.data = data

    def numbers(self) -> Tensor:
        """All of it `[N]`, a view of its bytes where these may be written to and are in our order."""
        if self.data is None:
            raise CheckpointError("the bytes of a storage are missing")
        if not self.numel:
            return torch.empty(0, dtype=self.dtype)
        view = memoryview(self.data)
        source = bytearray(view) if view.readonly else view
        # Any byte but 0 and 1 in a truth value has no defined meaning.
        kind = torch.uint8 if self.swapped or self.dtype is torch.bool else self.dtype
        flat = torch.frombuffer(source, dtype=kind)
        if self.swapped:
            flat = flat.view(-1, self.dtype.itemsize).flip(1).reshape(-1).view(self.dtype)
        return flat != 0 if self.dtype is torch.bool else flat


class StoredArray:
    """An array in a file: a window into a storage.

    Attributes:
        storage: Where its numbers are; None for an array of texts or objects, and for one that is still to be filled.
        offset: Of its first number.
        shape: Its sizes.
        stride: Its strides, in numbers.
    """

    __slots__ = ("offset", "shape", "storage", "stride")

    def __init__(
        self,
        storage: Storage | None = None,
        offset: int = 0,
        shape: Sequence[int] = (),
        stride: Sequence[int] | None = None,
    ) -> None:
        self.place(storage, offset, shape, stride)

    def place(
        self, storage: Storage | None, offset: int, shape: Sequence[int], stride: Sequence[int] | None = None
    ) -> None:
        """Say where the array is.

        Raises:
            CheckpointError: If it would reach beyond its storage.
        """
        if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS:
            raise CheckpointError("an array has an impossible shape")
        self.shape = tuple(shape)
        self.stride = _contiguous(self.shape) if stride is None else tuple(stride)
        if not _are_counts(self.stride) or len(self.stride) != len(self.shape) or not _is_count(offset):
            raise CheckpointError("an array has impossible strides")
        self.storage, self.offset = storage, offset
        if storage is None or 0 in self.shape:
            return
        last = offset + sum((side - 1) * step for side, step in zip(self.shape, self.stride))
        # It may be larger: people save what they have expanded. What that would take is counted where it is taken.
        if last >= storage.numel:
            raise CheckpointError(
                f"an array of shape {list(self.shape)} does not lie in its storage of {storage.numel:,}"
            )

    def set_state(self, state: Any) -> None:
        """Take over what ``numpy.ndarray.__setstate__`` would get; tensors have no state that matters."""
        if isinstance(state, dict):
            return
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], NumpyType):
            raise CheckpointError("an array is described in an unknown way")
        _, shape, kind, fortran, content = state
        data = None if isinstance(content, list) else as_bytes(content)
        filled = numpy_array(shape, kind, bool(fortran), data)
        self.place(filled.storage, 0, filled.shape, filled.stride)

    @property
    def numel(self) -> int:
        """Count of its numbers."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> torch.dtype | None:
        """Type of its numbers; None if it holds none."""
        return None if self.storage is None else self.storage.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return 0 if self.storage is None else self.numel * self.storage.dtype.itemsize

    def tensor(self) -> Tensor:
        """The array, as a view of the bytes of the file where that can be."""
        if self.storage is None:
            raise CheckpointError("an array holds texts or objects where numbers are needed")
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=self.storage.dtype)
        return self.storage.numbers().as_strided(self.shape, self.stride, self.offset)


def numpy_array(shape: Sequence[int], kind: NumpyType, fortran: bool, data: Bytes | None) -> StoredArray:
    """An array as numpy describes it; without ``data`` it holds no numbers.

    Raises:
        CheckpointError: If the bytes are not those of an array of this shape and type.
    """
    if kind.dtype is None or data is None:
        return StoredArray(None, 0, shape)
    if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise CheckpointError("an array has an impossible shape")
    storage = Storage(kind.dtype, math.prod(shape), data, kind.swapped)
    return StoredArray(storage, 0, shape, _contiguous(tuple(shape)[::-1])[::-1] if fortran else None)


def as_bytes(value: Any) -> Bytes:
    """Bytes, which Python 2 wrote as a text."""
    if isinstance(value, str):
        return value.encode("latin-1")
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise CheckpointError(f"it has a {type(value).__name__} where bytes are needed")
    return value


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of an array without gaps, the last dimension running fastest."""
    strides, step = [], 1
    for side in reversed(shape):
        strides.append(step)
        step *= side
    return tuple(reversed(strides))


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _are_counts(values: object) -> bool:
    return isinstance(values, (tuple, list)) and all(map(_is_count, values))

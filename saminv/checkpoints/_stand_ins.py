"""The names that checkpoints mention, each with an inert stand-in. There is no other way to a name.

A stand-in is a function of this package: it makes a plain container, an array whose bytes lie in the file, or a
:class:`Record` that keeps what an object was called with and filled with. What copies its arguments counts them.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

import torch

from .._errors import CheckpointError
from ._arrays import STORAGES, NumpyType, Storage, StoredArray, as_bytes, numpy_array
from ._limits import Budget
from ._pickle import LongText, Name, Record, checked_key

PERSISTENT = "torch_utils.persistence"
TENSORFLOW_NETWORK = "dnnlib.tflib.network.Network"

_RENAMED = (
    (re.compile(r"__builtin__"), "builtins"),
    (re.compile(r"copy_reg"), "copyreg"),
    # numpy 2 moved its core; arrays of either are written by the other's name.
    (re.compile(r"numpy\._core(?=\.|$)"), "numpy.core"),
    (re.compile(r"torch\.cuda"), "torch"),
)
_MODULES = re.compile(r"(torch\.nn\.(modules|parallel)\.\w+|training\.networks\w*|(models?|op)(\.\w+){0,3})\.[A-Z]\w*")
"""Classes of modules that people save whole: those of torch, of NVIDIA's and of rosinality's code."""

_RECORDS = (
    "argparse.Namespace",
    "builtins.complex",
    "builtins.range",
    "builtins.slice",
    "builtins.xrange",
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib.PurePosixPath",
    "pathlib.PureWindowsPath",
    "torch.device",
    "torch.nn.parameter.Parameter",
    TENSORFLOW_NETWORK,
)
_DICTIONARIES = (
    "builtins.dict",
    "collections.OrderedDict",
    "collections.Counter",
    "dnnlib.EasyDict",
    "dnnlib.util.EasyDict",
    "easydict.EasyDict",
    "yacs.config.CfgNode",
)
_MENTIONED = (
    *(f"builtins.{name}" for name in ("object", "int", "float", "bool", "str", "type")),
    *(f"numpy.{name}" for name in ("ndarray", "float16", "float32", "float64", "int32", "int64", "uint8", "bool_")),
    *(str(getattr(torch, name)) for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16")),
    *(str(getattr(torch, name)) for name in ("int8", "uint8", "bool")),
    *(f"torch.{name}" for name in STORAGES),
    "torch.Tensor",
    "torch.storage.UntypedStorage",
    "torch.storage.TypedStorage",
)
_DTYPES = {str(dtype): dtype for dtype in STORAGES.values()}


class Names:
    """The table, for the reading of one file.

    Args:
        budget: What may be spent.
        load_storage: Reads the bytes of a storage that torch saved inside of a pickle.
    """

    def __init__(self, budget: Budget, load_storage: Callable[[Any], Storage]) -> None:
        self.budget = budget
        self.known: dict[str, Name] = {}
        counted = {
            "builtins.set": set,
            "builtins.frozenset": frozenset,
            "builtins.list": list,
            "builtins.tuple": tuple,
            "collections.deque": list,
            "torch.Size": tuple,
        }
        for full, kind in counted.items():
            self.add(full, functools.partial(self.copied, kind))
        for full in _DICTIONARIES:
            self.add(full, self.dictionary)
        for full in _RECORDS:
            self.add(full, functools.partial(_record, full))
        for full in _MENTIONED:
            self.add(full, None)
        self.add("builtins.bytes", self.raw)
        self.add("builtins.bytearray", self.raw)
        self.add("collections.defaultdict", lambda *arguments: self.dictionary(*arguments[1:]))
        self.add("copyreg._reconstructor", self.reconstructed)
        self.add("_codecs.encode", self.encoded)
        self.add("numpy.dtype", _numpy_type)
        self.add("numpy.core.multiarray._reconstruct", lambda *_: StoredArray())
        self.add("numpy.core.multiarray.scalar", _numpy_scalar)
        self.add("numpy.core.numeric._frombuffer", _numpy_buffer)
        self.add("torch.storage._load_from_bytes", load_storage)
        self.add("torch._utils._rebuild_tensor", _tensor)
        self.add("torch._utils._rebuild_tensor_v2", _tensor)
        self.add("torch._utils._rebuild_tensor_v3", _typed_tensor)
        self.add("torch._utils._rebuild_parameter", _parameter)
        self.add("torch._utils._rebuild_parameter_with_state", _parameter)
        self.add("torch._tensor._rebuild_from_type_v2", _tensor_of_type)
        self.add(f"{PERSISTENT}._reconstruct_persistent_obj", _persistent)

    def add(self, full: str, make: Callable[..., Any] | None) -> None:
        """Enter a stand-in."""
        self.known[full] = Name(full, make)

    def find(self, module: str, name: str) -> Name:
        """The stand-in of a name.

        Raises:
            CheckpointError: If the name is not on the list.
        """
        for pattern, replacement in _RENAMED:
            if match := pattern.match(module):
                module = replacement + module[match.end() :]
        full = f"{module}.{name}"
        if full not in self.known and _MODULES.fullmatch(full):
            self.add(full, functools.partial(_record, full))
        if full not in self.known:
            raise CheckpointError(
                f"it refers to {full[:200]}, which is not among the names that checkpoints need; nothing was executed"
            )
        return self.known[full]

    # What copies its arguments.

    def copied(self, kind: type, *arguments: Any) -> Any:
        """A list, tuple or set of the elements of another one."""
        (elements,) = arguments or ((),)
        if not isinstance(elements, (list, tuple, set, frozenset)):
            raise CheckpointError(f"it makes a {kind.__name__} of a {type(elements).__name__}")
        self.budget.step(len(elements))
        return kind(map(checked_key, elements)) if kind in (set, frozenset) else kind(elements)

    def dictionary(self, *arguments: Any) -> dict[Any, Any]:
        """A dictionary of another one, or of pairs."""
        (content,) = arguments or ({},)
        pairs = content.items() if isinstance(content, dict) else content
        if not isinstance(content, (dict, list, tuple)):
            raise CheckpointError(f"it makes a dictionary of a {type(content).__name__}")
        self.budget.step(len(content))
        return {checked_key(key): value for key, value in pairs}

    def raw(self, *arguments: Any) -> Any:
        """Bytes, of bytes or of a text and its encoding."""
        if not arguments:
            return b""
        return self.encoded(*arguments) if isinstance(arguments[0], (str, LongText)) else as_bytes(arguments[0])

    def encoded(self, text: Any, encoding: Any = "latin1") -> bytes:
        """The bytes that old protocols wrote as a text."""
        if encoding not in ("latin1", "latin-1") or not isinstance(text, (str, LongText)):
            raise CheckpointError("it encodes a text in an unknown way")
        self.budget.copy(len(text) if isinstance(text, str) else len(text.raw))
        return str(text).encode("latin-1")

    def reconstructed(self, kind: Any, base: Any, state: Any) -> Any:
        """An object as the oldest protocols make it."""
        if not isinstance(kind, Name) or kind.make is None or not isinstance(base, Name):
            raise CheckpointError("it makes an object in an unknown way")
        return kind.make(state) if base.full == "builtins.dict" else kind.make()


def _record(full: str, *arguments: Any) -> Record:
    return Record(full, arguments)


def _persistent(meta: Any, *_: Any) -> Record:
    """An object of NVIDIA's persistent classes; the source code of its class is left alone."""
    if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
        raise CheckpointError("it has a persistent object without a state")
    record = Record(f"{PERSISTENT}.{meta.get('class_name')}")
    record.state = meta["state"]
    return record


def _numpy_type(code: Any, *_: Any) -> NumpyType:
    if not isinstance(code, str):
        return NumpyType("V")
    return NumpyType(code)


def _numpy_scalar(kind: Any, content: Any = b"") -> Any:
    """A number of numpy as one of Python."""
    if not isinstance(kind, NumpyType) or kind.dtype is None:
        raise CheckpointError("it has a scalar that is no number")
    return numpy_array((1,), kind, False, as_bytes(content)).tensor().item()


def _numpy_buffer(content: Any, kind: Any, shape: Any, order: Any = "C", *_: Any) -> StoredArray:
    if not isinstance(kind, NumpyType):
        raise CheckpointError("it has an array without a type")
    return numpy_array(shape, kind, order == "F", as_bytes(content))


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> StoredArray:
    if not isinstance(storage, Storage):
        raise CheckpointError("it has a tensor without a storage")
    return StoredArray(storage, offset, shape, stride)


def _typed_tensor(storage: Any, offset: Any, shape: Any, stride: Any, _: Any, hooks: Any, kind: Any, *more: Any) -> Any:
    """A tensor of bytes whose type is said apart."""
    dtype = _DTYPES.get(kind.full) if isinstance(kind, Name) else None
    if not isinstance(storage, Storage) or dtype is None or storage.numel % dtype.itemsize:
        raise CheckpointError("it has a tensor of an unknown type")
    if storage.dtype is not torch.uint8:
        raise CheckpointError("it has a tensor of another type than its storage")
    return StoredArray(_Retyped(storage, dtype), offset, shape, stride)


class _Retyped(Storage):
    """Bytes that may come later, as numbers of another type."""

    __slots__ = ("source",)

    def __init__(self, source: Storage, dtype: torch.dtype) -> None:
        super().__init__(dtype, source.numel // dtype.itemsize, swapped=source.swapped)
        self.source = source

    def numbers(self) -> torch.Tensor:
        if self.source.data is not None:
            self.data = self.source.data
        return super().numbers()


def _parameter(tensor: Any, *_: Any) -> StoredArray:
    if not isinstance(tensor, StoredArray):
        raise CheckpointError("it has a parameter without a tensor")
    return tensor


_REBUILDERS: Mapping[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
}


def _tensor_of_type(function: Any, kind: Any, arguments: Any, *_: Any) -> StoredArray:
    """A tensor with attributes, or of a subclass, as a plain one."""
    rebuild = _REBUILDERS.get(function.full) if isinstance(function, Name) else None
    if rebuild is None or not isinstance(arguments, tuple):
        raise CheckpointError("it makes a tensor in an unknown way")
    return rebuild(*arguments)


def storage_type(name: Any) -> torch.dtype:
    """Type of the numbers of a storage class that a file mentions."""
    kind = name.full.rsplit(".", 1)[-1] if isinstance(name, Name) else ""
    if kind not in STORAGES:
        raise CheckpointError(f"it has a storage of the unknown type {kind or type(name).__name__}")
    return STORAGES[kind]


def unpack_count(data: Any) -> int:
    """The eight bytes before a storage."""
    return struct.unpack("<q", data)[0]

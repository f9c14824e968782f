"""An interpreter of pickles that executes nothing.

Pickle is a small stack language. Python's own reader of it imports every name that a file mentions and calls what it
imported; guards around it (``find_class``) decide about names only. It also makes room for whatever sizes a file
states: one instruction of five bytes lets its memo ask for gigabytes. So this is an interpreter of our own. It knows
plain values and containers itself. For names it asks a table (``_stand_ins.py``), whose entries are functions of ours
that make inert records and arrays; no name is imported, no code of a file is compiled, and every size is compared with
what is left of the file before anything is made.

Bytes are not copied: long ones are views of the file. Long texts, such as the source code that NVIDIA's files carry,
are kept as they are and not even decoded.

Reference:
    The instructions are described in the module ``pickletools`` of Python; protocols 0 to 5 (PEP 307, 3154, 574).
"""

from __future__ import annotations

import codecs
import pickle
import struct
from collections.abc import Callable
from typing import Any

from .._errors import CheckpointError
from ._arrays import NumpyType, StoredArray
from ._limits import MAX_DEPTH, MAX_INTEGER, MAX_LINE, MAX_STACK, Budget

SHORT_BYTES = 64
SHORT_TEXT = 4096
_SCALARS = (str, int, float, bool, bytes, type(None))


class Name:
    """A name that a file mentions and the table knows.

    Attributes:
        full: "module.name".
        make: What calling it stands for, as a function of its arguments; None if it can only be mentioned.
    """

    __slots__ = ("full", "make")

    def __init__(self, full: str, make: Callable[..., Any] | None = None) -> None:
        self.full, self.make = full, make


class Record:
    """An object of a class that is not there: what it was called with and what it was filled with.

    Attributes:
        kind: "module.name" of its class.
        arguments: Of its constructor.
        state: Its attributes by name.
        items: Its entries, if it was filled like a dictionary.
    """

    __slots__ = ("arguments", "items", "kind", "state")

    def __init__(self, kind: str, arguments: tuple[Any, ...] = ()) -> None:
        self.kind, self.arguments = kind, arguments
        self.state: dict[str, Any] = {}
        self.items: dict[Any, Any] = {}


class LongText:
    """A text that nobody has asked for yet.

    Attributes:
        raw: Its bytes in the file.
        encoding: How they are to be read.
    """

    __slots__ = ("encoding", "raw")

    def __init__(self, raw: memoryview, encoding: str) -> None:
        self.raw, self.encoding = raw, encoding

    def __str__(self) -> str:
        return str(self.raw, self.encoding)


Finder = Callable[[str, str], Name]
Resolver = Callable[[Any], Any]


def unpickle(
    data: memoryview, find: Finder, budget: Budget, persistent: Resolver | None = None, start: int = 0
) -> tuple[Any, int]:
    """Read one pickle.

    Args:
        data: The bytes.
        find: Returns the stand-in of (module, name), or raises.
        budget: What may be spent.
        persistent: Resolves references to things outside of the pickle; refused where None.
        start: Where the pickle begins.

    Returns:
        The object, and where the pickle ends.

    Raises:
        CheckpointError: If the pickle is damaged, mentions a name that ``find`` refuses, or asks for too much.
    """
    machine = _Machine(data, find, budget, persistent, start)
    try:
        return machine.run(), machine.place
    except (IndexError, KeyError, ValueError, TypeError, OverflowError, struct.error) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"its pickle is damaged at byte {machine.place:,} ({type(error).__name__})") from error


class _Machine:
    """The state of one pickle while it is read: a stack, the stacks below its marks, and a memo."""

    def __init__(self, data: memoryview, find: Finder, budget: Budget, persistent: Resolver | None, start: int) -> None:
        self.data, self.find, self.budget, self.persistent, self.place = data, find, budget, persistent, start
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Follow the instructions until STOP and return the value on top."""
        data, size, budget = self.data, len(self.data), self.budget
        while self.place < size:
            code = data[self.place]
            self.place += 1
            if code == _STOP:
                return self.stack.pop()
            act = _INSTRUCTIONS.get(code)
            if act is None:
                raise CheckpointError(f"its pickle has the unknown instruction {bytes([code])!r} at {self.place - 1:,}")
            budget.step()
            act(self)
            if len(self.stack) > MAX_STACK:
                raise CheckpointError(f"its pickle piles up more than {MAX_STACK:,} values")
        raise CheckpointError("it ends in the middle of a pickle")

    # Reading.

    def take(self, count: int) -> memoryview:
        """The next bytes, as a view."""
        end = self.place + count
        if count < 0 or end > len(self.data):
            raise CheckpointError(
                f"it ends at byte {len(self.data):,} where {count:,} more bytes should follow {self.place:,}"
            )
        view = self.data[self.place : end]
        self.place = end
        return view

    def number(self, form: str) -> Any:
        """A number of fixed length."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self, most: int = 256) -> memoryview:
        """The rest of a line, without its end, as a view."""
        length, start = 64, self.place
        while True:
            chunk = bytes(self.data[start : start + length])
            found = chunk.find(b"\n")
            if found >= 0:
                self.place = start + found + 1
                return self.data[start : start + found]
            if len(chunk) < length or length >= most:
                raise CheckpointError(f"its pickle has no end of line after byte {start:,}")
            length *= 4

    # Values.

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def bytes_of(self, count: int) -> bytes | memoryview:
        raw = self.take(count)
        return bytes(raw) if count <= SHORT_BYTES else raw

    def text_of(self, raw: memoryview, encoding: str = "utf-8") -> str | LongText:
        if len(raw) > MAX_LINE:
            raise CheckpointError(f"it has a text of {len(raw):,} bytes")
        if len(raw) > SHORT_TEXT:
            return LongText(raw, encoding)
        return str(raw, encoding, "surrogatepass") if encoding == "utf-8" else str(raw, encoding)

    def old_text(self, raw: bytes | memoryview) -> str | bytes | memoryview:
        """A string of Python 2, which is a text or bytes: long ones are the data of arrays."""
        return str(raw, "latin-1") if len(raw) <= SHORT_TEXT else raw

    def integer_of(self, raw: bytes | memoryview) -> int:
        if len(raw) > MAX_INTEGER:
            raise CheckpointError(f"it has a whole number of {len(raw):,} bytes")
        return int.from_bytes(raw, "little", signed=True)

    # Marks.

    def mark(self) -> None:
        if len(self.below) >= MAX_DEPTH:
            raise CheckpointError(f"its pickle nests deeper than {MAX_DEPTH} levels")
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.below.pop()
        return values

    # Instructions with more than a line of meaning.

    def protocol(self) -> None:
        version = self.number("B")
        if version > 5:
            raise CheckpointError(f"its pickle has protocol {version}; known are 0 to 5")

    def frame(self) -> None:
        length = self.number("<Q")
        if length > len(self.data) - self.place:
            raise CheckpointError(f"it ends at byte {len(self.data):,} in the middle of a frame of its pickle")

    def old_integer(self) -> None:
        line = bytes(self.line())
        self.push(line == b"01" if line in (b"00", b"01") else _decimal(line))

    def old_long(self) -> None:
        self.push(_decimal(bytes(self.line()).removesuffix(b"L")))

    def quoted(self) -> None:
        line = self.line(MAX_LINE)
        if len(line) < 2 or line[0] != line[-1] or line[0] not in b"'\"":
            raise CheckpointError("its pickle has a string without quotes")
        self.budget.copy(len(line))
        self.push(self.old_text(codecs.escape_decode(line[1:-1])[0]))  # type: ignore[attr-defined]

    def take_dict(self) -> None:
        values = self.since_mark()
        self.push({})
        self.set_items(values)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        entries = target.items if isinstance(target, Record) else target
        if not isinstance(entries, dict) or len(values) % 2:
            raise CheckpointError(f"its pickle fills a {type(target).__name__} like a dictionary")
        for key, value in zip(values[::2], values[1::2]):
            entries[checked_key(key)] = value

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise CheckpointError(f"its pickle fills a {type(target).__name__} like a list")
        target.extend(values)

    def add_items(self) -> None:
        values = self.since_mark()
        target = self.stack[-1]
        if type(target) is not set:
            raise CheckpointError(f"its pickle fills a {type(target).__name__} like a set")
        target.update(map(checked_key, values))

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        self.push(self.memo[index])

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise CheckpointError("its pickle mentions a name that is no text")
        self.push(self.find(module, name))

    def global_name(self) -> None:
        module, name = (str(self.line(), "utf-8") for _ in range(2))
        self.name(module, name)

    def stack_name(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.name(module, name)

    def call(self, function: Any, arguments: Any) -> None:
        """Let the stand-in of a name make what calling the name would have made."""
        if not isinstance(function, Name):
            raise CheckpointError(f"its pickle calls a {type(function).__name__}")
        if function.make is None:
            raise CheckpointError(f"its pickle calls {function.full}, which it may only mention; nothing was executed")
        if not isinstance(arguments, tuple):
            raise CheckpointError(f"its pickle calls {function.full} with a {type(arguments).__name__}")
        self.push(function.make(*arguments))

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.call(function, arguments)

    def new_object(self) -> None:
        # Keywords of constructors matter to nothing that is read.
        self.stack.pop()
        self.reduce()

    def old_instance(self) -> None:
        self.global_name()
        function = self.stack.pop()
        self.call(function, tuple(self.since_mark()))

    def old_object(self) -> None:
        function, *arguments = self.since_mark()
        self.call(function, tuple(arguments))

    def build(self) -> None:
        """Fill the object on top with a state."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record):
            for part in state if isinstance(state, tuple) else (state,):
                if isinstance(part, dict):
                    self.budget.step(len(part))
                    target.state.update(part)
        elif isinstance(target, (StoredArray, NumpyType)):
            target.set_state(state)
        elif not isinstance(target, dict):
            raise CheckpointError(f"its pickle fills a {type(target).__name__} with attributes")
        # Attributes of a dictionary are what torch notes about versions of modules.

    def outside(self, reference: Any) -> None:
        if self.persistent is None:
            raise CheckpointError("its pickle refers to things outside of it")
        self.push(self.persistent(reference))


def checked_key(key: Any) -> Any:
    """A key of a dictionary or set, if it is one whose hash and comparison are cheap."""
    flat = key if type(key) is tuple and len(key) <= 16 else (key,)
    if not all(type(part) in _SCALARS for part in flat):
        raise CheckpointError(f"its pickle has a {type(key).__name__} as a key")
    if any(type(part) is int and abs(part) >> 64 for part in flat):
        raise CheckpointError("its pickle has an enormous number as a key")
    return key


def _decimal(line: bytes | memoryview) -> int:
    if len(line) > 2 * MAX_INTEGER:
        raise CheckpointError(f"it has a whole number of {len(line):,} digits")
    return int(bytes(line))


def _refuse(what: str) -> Callable[[_Machine], None]:
    def act(_: _Machine) -> None:
        raise CheckpointError(f"its pickle uses {what}, which no checkpoint does")

    return act


_STOP = pickle.STOP[0]
_TABLE: dict[bytes, Callable[[_Machine], Any]] = {
    pickle.PROTO: _Machine.protocol,
    pickle.FRAME: _Machine.frame,
    pickle.MARK: _Machine.mark,
    pickle.POP: lambda m: m.stack.pop() if m.stack else m.since_mark(),
    pickle.POP_MARK: _Machine.since_mark,
    pickle.DUP: lambda m: m.push(m.stack[-1]),
    # Plain values.
    pickle.NONE: lambda m: m.push(None),
    pickle.NEWTRUE: lambda m: m.push(True),
    pickle.NEWFALSE: lambda m: m.push(False),
    pickle.INT: _Machine.old_integer,
    pickle.LONG: _Machine.old_long,
    pickle.BININT: lambda m: m.push(m.number("<i")),
    pickle.BININT1: lambda m: m.push(m.number("B")),
    pickle.BININT2: lambda m: m.push(m.number("<H")),
    pickle.LONG1: lambda m: m.push(m.integer_of(m.take(m.number("B")))),
    pickle.LONG4: lambda m: m.push(m.integer_of(m.take(m.number("<i")))),
    pickle.FLOAT: lambda m: m.push(float(bytes(m.line()))),
    pickle.BINFLOAT: lambda m: m.push(m.number(">d")),
    pickle.STRING: _Machine.quoted,
    pickle.BINSTRING: lambda m: m.push(m.old_text(m.take(m.number("<i")))),
    pickle.SHORT_BINSTRING: lambda m: m.push(m.old_text(m.take(m.number("B")))),
    pickle.UNICODE: lambda m: m.push(m.text_of(m.line(MAX_LINE), "raw-unicode-escape")),
    pickle.BINUNICODE: lambda m: m.push(m.text_of(m.take(m.number("<I")))),
    pickle.BINUNICODE8: lambda m: m.push(m.text_of(m.take(m.number("<Q")))),
    pickle.SHORT_BINUNICODE: lambda m: m.push(m.text_of(m.take(m.number("B")))),
    pickle.BINBYTES: lambda m: m.push(m.bytes_of(m.number("<I"))),
    pickle.BINBYTES8: lambda m: m.push(m.bytes_of(m.number("<Q"))),
    pickle.SHORT_BINBYTES: lambda m: m.push(m.bytes_of(m.number("B"))),
    pickle.BYTEARRAY8: lambda m: m.push(m.bytes_of(m.number("<Q"))),
    # Containers.
    pickle.EMPTY_TUPLE: lambda m: m.push(()),
    pickle.TUPLE1: lambda m: m.push((m.stack.pop(),)),
    pickle.TUPLE2: lambda m: m.push((m.stack.pop(), m.stack.pop())[::-1]),
    pickle.TUPLE3: lambda m: m.push((m.stack.pop(), m.stack.pop(), m.stack.pop())[::-1]),
    pickle.TUPLE: lambda m: m.push(tuple(m.since_mark())),
    pickle.EMPTY_LIST: lambda m: m.push([]),
    pickle.LIST: lambda m: m.push(m.since_mark()),
    pickle.APPEND: lambda m: m.append([m.stack.pop()]),
    pickle.APPENDS: lambda m: m.append(m.since_mark()),
    pickle.EMPTY_DICT: lambda m: m.push({}),
    pickle.DICT: _Machine.take_dict,
    pickle.SETITEM: _Machine.set_item,
    pickle.SETITEMS: lambda m: m.set_items(m.since_mark()),
    pickle.EMPTY_SET: lambda m: m.push(set()),
    pickle.ADDITEMS: _Machine.add_items,
    pickle.FROZENSET: lambda m: m.push(frozenset(map(checked_key, m.since_mark()))),
    # The memo.
    pickle.PUT: lambda m: m.remember(_decimal(m.line())),
    pickle.BINPUT: lambda m: m.remember(m.number("B")),
    pickle.LONG_BINPUT: lambda m: m.remember(m.number("<I")),
    pickle.MEMOIZE: lambda m: m.remember(len(m.memo)),
    pickle.GET: lambda m: m.recall(_decimal(m.line())),
    pickle.BINGET: lambda m: m.recall(m.number("B")),
    pickle.LONG_BINGET: lambda m: m.recall(m.number("<I")),
    # Names and objects.
    pickle.GLOBAL: _Machine.global_name,
    pickle.STACK_GLOBAL: _Machine.stack_name,
    pickle.REDUCE: _Machine.reduce,
    pickle.NEWOBJ: _Machine.reduce,
    pickle.NEWOBJ_EX: _Machine.new_object,
    pickle.INST: _Machine.old_instance,
    pickle.OBJ: _Machine.old_object,
    pickle.BUILD: _Machine.build,
    pickle.PERSID: lambda m: m.outside(str(m.line(), "utf-8")),
    pickle.BINPERSID: lambda m: m.outside(m.stack.pop()),
    pickle.EXT1: _refuse("the registry of extensions"),
    pickle.EXT2: _refuse("the registry of extensions"),
    pickle.EXT4: _refuse("the registry of extensions"),
    pickle.NEXT_BUFFER: _refuse("buffers outside of it"),
    pickle.READONLY_BUFFER: _refuse("buffers outside of it"),
}
_INSTRUCTIONS = {code[0]: act for code, act in _TABLE.items()}

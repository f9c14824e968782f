"""Files that would harm who executes them, that ask for endless memory, or that are simply none: refused, by name.

Every one of them is read in a process whose memory is watched, next to a canary: a file that each would create if
anything in it ran.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_files import EasyDict, nvidia_pickle, pickled, rosinality_trainer, saved, write
from helpers import golden
from safetensors.torch import save as serialise

import saminv
from saminv import CheckpointError
from saminv.checkpoints import read_checkpoint

CANARY = "canary"
MOST_MEMORY = 512 << 20
SECONDS = 60

Maker = Callable[[Path], bytes]


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def text(value: str) -> bytes:
    """A text as protocol 2 writes it."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def name(full: str) -> bytes:
    module, _, last = full.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def call(full: str, *arguments: str) -> bytes:
    """A pickle that calls a name with texts."""
    return b"\x80\x02" + name(full) + b"(" + b"".join(map(text, arguments)) + b"tR."


def command(folder: Path) -> str:
    return f"touch {folder / CANARY}"


def python(folder: Path) -> str:
    return f"open({str(folder / CANARY)!r}, 'w').close()"


def stack_name(module: str, last: str) -> bytes:
    def short(word):
        return b"\x8c" + bytes([len(word)]) + word.encode()

    return short(module) + short(last) + b"\x93"


def legacy_torch(inner: bytes) -> bytes:
    """A run of pickles as torch wrote it, with any pickle as its object."""
    parts = [pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2), pickle.dumps({"little_endian": True}, 2)]
    return b"".join([*parts, inner, pickle.dumps([], 2)])


def torch_archive(inner: bytes, *more: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive as torch writes it, with any pickle as its object."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for member, content in (("a/data.pkl", inner), ("a/version", b"3\n"), *more):
            archive.writestr(member, content)
    return buffer.getvalue()


def renamed_member(content: bytes, before: str, after: str) -> bytes:
    assert len(before) == len(after)
    return content.replace(before.encode(), after.encode())


def storage_of(numel: int, key: str = "0") -> bytes:
    """A reference to a storage."""
    numbers = b"\x8a\x08" + struct.pack("<q", numel)
    return b"(" + text("storage") + name("torch.FloatStorage") + text(key) + text("cpu") + numbers + b"tQ"


def tensor_of(shape: str, stride: str, numel: int = 4, offset: int = 0) -> bytes:
    """A pickle of a tensor with any window into its storage; shape and stride are of pickle's own instructions."""
    rebuild = name("torch._utils._rebuild_tensor_v2")
    window = f"I{offset}\n".encode() + shape.encode("latin-1") + stride.encode("latin-1")
    return (
        b"\x80\x02" + rebuild + b"(" + storage_of(numel) + window + b"\x89" + name("collections.OrderedDict") + b")RtR."
    )


def bomb(size: int = 1 << 27) -> bytes:
    """An archive of zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a/data.pkl", "w") as member:
        for _ in range(size >> 20):
            member.write(bytes(1 << 20))
    return buffer.getvalue()


def lying_member(content: bytes, size: int) -> bytes:
    """The same archive, whose list states another unpacked size for its first member."""
    place = content.index(b"PK\1\2")
    return content[: place + 24] + struct.pack("<I", size) + content[place + 28 :]


def overlapping() -> bytes:
    """An archive in which two names stand for the same bytes."""
    content = bytearray(torch_archive(pickle.dumps({}, 2), ("a/data/0", bytes(64)), ("a/data/1", bytes(64))))
    entries = [k for k in range(len(content)) if content[k : k + 4] == b"PK\1\2"]
    first, second = entries[-2], entries[-1]
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    return bytes(content).replace(b"a/data/1", b"a/data/0")


def encrypted() -> bytes:
    content = bytearray(torch_archive(pickle.dumps({}, 2)))
    content[content.index(b"PK\1\2") + 8] |= 1
    return bytes(content)


def laughs(levels: int = 60) -> bytes:
    """A pickle whose tuples hold each the one before twice, the last one as a key."""
    steps = b"".join(b"h" + bytes([k]) + b"h" + bytes([k]) + b"\x86q" + bytes([k + 1]) + b"0" for k in range(levels))
    return b"\x80\x02K\x01q\x000" + steps + b"}h" + bytes([levels]) + b"K\x02s."


def copies(full: str, count: int) -> bytes:
    """A pickle that copies a list of a thousand things many times through a name that is allowed."""
    once = b"h\x00h\x01\x85R"
    things = b"](" + b"K\x01K\x02\x86" * 1000 + b"e"
    return b"\x80\x02" + name(full) + b"q\x00" + things + b"q\x010" + b"](" + once * count + b"e."


def encodings(count: int) -> bytes:
    """A pickle that encodes a megabyte many times."""
    content = text("a" * (1 << 20)) + b"q\x00" + text("latin1") + b"q\x01"
    return b"\x80\x02" + content + name("_codecs.encode") + b"q\x02](" + b"h\x02h\x00h\x01\x86R" * count + b"e."


def npy(header: str, body: bytes = b"") -> bytes:
    raw = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(raw)) + raw + body


def npz(content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("a.npy", content)
    return buffer.getvalue()


def safe(header: object, body: bytes = b"") -> bytes:
    raw = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(raw)) + raw + body


def giant_network(**fields) -> bytes:
    """A file of our own form whose configuration is far larger than its arrays."""
    config = {"resolution": 1 << 20, "channel_max": 1 << 14, "channel_base": 1 << 24, **fields}
    return serialise({"const": torch.zeros(4)}, {"family": "stylegan2", "config": json.dumps(config)})


OBJECTS = "numpy.core.multiarray._reconstruct"
HOSTILE: dict[str, tuple[str, Maker]] = {
    # What would run a command.
    "os.system, protocol 0": (r"os\.system", lambda at: f"cos\nsystem\n(S'{command(at)}'\ntR.".encode()),
    "os.system by an instance": (r"os\.system", lambda at: f"(S'{command(at)}'\nios\nsystem\n.".encode()),
    "os.system by an object": (r"os\.system", lambda at: b"(cos\nsystem\n" + text(command(at)) + b"o."),
    "posix.system": (r"posix\.system", lambda at: call("posix.system", command(at))),
    "nt.system": (r"nt\.system", lambda at: call("nt.system", command(at))),
    "subprocess": (r"subprocess\.getoutput", lambda at: call("subprocess.getoutput", command(at))),
    "eval": (r"builtins\.eval", lambda at: call("builtins.eval", python(at))),
    "eval of Python 2": (r"builtins\.eval", lambda at: call("__builtin__.eval", python(at))),
    "exec": (r"builtins\.exec", lambda at: call("builtins.exec", python(at))),
    "getattr": (r"builtins\.getattr", lambda at: call("builtins.getattr", "os", "system")),
    "import": (r"builtins\.__import__", lambda at: call("builtins.__import__", "antigravity")),
    "importlib": (r"importlib\.import_module", lambda at: call("importlib.import_module", "antigravity")),
    "runpy": (r"runpy\.run_path", lambda at: call("runpy.run_path", str(at / "a.py"))),
    "stacked name": (
        r"os\.system",
        lambda at: b"\x80\x04" + stack_name("os", "system") + text(command(at)) + b"\x85R.",
    ),
    "dotted name": (
        r"torch\.os\.system",
        lambda at: b"\x80\x04" + stack_name("torch", "os.system") + text(command(at)) + b"\x85R.",
    ),
    "attribute of an allowed name": (
        r"collections\.OrderedDict\.fromkeys",
        lambda at: b"\x80\x04" + stack_name("collections", "OrderedDict.fromkeys") + b"\x8c\x01a\x85R.",
    ),
    "torch.load": (r"torch\.serialization\.load", lambda at: call("torch.serialization.load", "a")),
    "numpy.load": (r"numpy\.load", lambda at: call("numpy.load", "a")),
    "numpy's runner": (
        r"numpy\.testing\._private\.utils\.runstring",
        lambda at: call("numpy.testing._private.utils.runstring", python(at)),
    ),
    "functools.partial": (r"functools\.partial", lambda at: call("functools.partial", "a")),
    "operator": (r"operator\.attrgetter", lambda at: call("operator.attrgetter", "system")),
    "timeit": (r"timeit\.timeit", lambda at: call("timeit.timeit", python(at))),
    # Detours through what is allowed.
    "rebuilding by another function": (
        "makes a tensor in an unknown way",
        lambda at: (
            b"\x80\x02"
            + name("torch._tensor._rebuild_from_type_v2")
            + b"("
            + name("_codecs.encode")
            + name("torch.Tensor")
            + text(command(at))
            + b"\x85NtR."
        ),
    ),
    "a class that may only be mentioned": (
        r"calls builtins\.object, which it may only mention",
        lambda at: b"\x80\x02" + name("builtins.object") + b")R.",
    ),
    "a call of a result": ("calls a dict", lambda at: b"\x80\x02" + name("collections.OrderedDict") + b")R)R."),
    "a call of a text": ("calls a str", lambda at: b"\x80\x02" + text("os.system") + text(command(at)) + b"\x85R."),
    "a state for a list": ("fills a list", lambda at: b"\x80\x02]}" + text("append") + text("a") + b"sb."),
    "the oldest way to an object": (
        r"os\.system",
        lambda at: (
            b"\x80\x02" + name("copyreg._reconstructor") + b"(" + name("os.system") + name("builtins.object") + b"NtR."
        ),
    ),
    "an array of objects": (
        r"posix\.system|nt\.system",
        lambda at: pickle.dumps(np.array([Calls(__import__("os").system, command(at))], dtype=object)),
    ),
    "an array of another class": (
        r"os\.system",
        lambda at: b"\x80\x02" + name(OBJECTS) + b"(" + name("os.system") + b"K\x00\x85C\x01btR.",
    ),
    "source code": (
        "of an unknown kind",
        lambda at: pickled({"G_ema": persistent(python(at))}),
    ),
    "a nested storage": (
        r"os\.system",
        lambda at: (
            b"\x80\x02"
            + name("torch.storage._load_from_bytes")
            + b"B"
            + struct.pack("<I", len(nested(at)))
            + nested(at)
            + b"\x85R."
        ),
    ),
    "storages inside of storages": ("pickles inside of pickles", lambda at: nest(8)),
    "inside of an archive": (
        r"os\.system",
        lambda at: torch_archive(f"cos\nsystem\n(S'{command(at)}'\ntR.".encode()),
    ),
    "inside of an old torch file": (
        r"os\.system",
        lambda at: legacy_torch(f"cos\nsystem\n(S'{command(at)}'\ntR.".encode()),
    ),
    "a TorchScript program": (
        "TorchScript",
        lambda at: torch_archive(pickle.dumps({}, 2), ("a/code/__torch__.py", python(at).encode())),
    ),
    "the registry of extensions": ("registry of extensions", lambda at: b"\x80\x02\x82\x01."),
    "buffers outside": ("buffers outside", lambda at: b"\x80\x05\x97."),
    "a reference to elsewhere": ("outside of it", lambda at: b"\x80\x02" + text("x") + b"Q."),
    "a reference of protocol 0": ("outside of it", lambda at: b"(Pelsewhere\nt."),
    # What would take endless memory or time.
    "a memo of four billion": ("nothing in it", lambda at: b"\x80\x02]r\xff\xff\xff\xff."),
    "an unknown memo": ("damaged", lambda at: b"\x80\x02h\x07."),
    "a list in itself": ("a list of 1", lambda at: b"\x80\x02]q\x00h\x00a."),
    "laughs": ("as a key", lambda at: laughs()),
    "deep marks": ("nests deeper", lambda at: b"\x80\x02" + b"(" * 100_000 + b"."),
    "deep tuples": ("a tuple of 1", lambda at: b"\x80\x02)" + b"\x85" * 900_000 + b"."),
    "deep lists": ("piles up", lambda at: b"\x80\x02" + b"]" * 900_000 + b"a" * 899_999 + b"."),
    "ten gigabytes of bytes": ("ends at byte", lambda at: b"\x80\x04\x8e" + struct.pack("<Q", 10 << 30) + b"a."),
    "ten gigabytes of text": ("ends at byte", lambda at: b"\x80\x04\x8d" + struct.pack("<Q", 10 << 30) + b"a."),
    "ten gigabytes to write to": ("ends at byte", lambda at: b"\x80\x05\x96" + struct.pack("<Q", 10 << 30) + b"a."),
    "negative length": ("ends at byte", lambda at: b"\x80\x02T" + struct.pack("<i", -5) + b"a."),
    "a frame beyond the end": ("in the middle of a frame", lambda at: b"\x80\x04\x95" + struct.pack("<Q", 10 << 30)),
    "a number of two gigabytes": ("ends at byte", lambda at: b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1)),
    "a number of a kilobyte": ("whole number", lambda at: b"\x80\x02\x8b" + struct.pack("<i", 1024) + bytes(1024)),
    "a number of many digits": ("digits|no end of line", lambda at: b"I" + b"9" * 100_000 + b"\n."),
    "numbers that collide": ("enormous number", lambda at: b"\x80\x02}\x8a\x10" + bytes(12) + b"\x01\0\0\0K\x01s."),
    "copies through a dictionary": ("instructions", lambda at: copies("collections.OrderedDict", 50_000)),
    "copies through a set": ("as a key|instructions", lambda at: copies("builtins.list", 50_000)),
    "a text encoded many times": ("unpacks to far more", lambda at: encodings(5000)),
    "sets without end": ("instructions|piles up", lambda at: b"\x80\x04(" + b"\x8f" * 1_200_000 + b"l."),
    "sets in lists": ("instructions", lambda at: b"\x80\x04](" + (b"\x8f" * 1000 + b"e(") * 1200 + b"e."),
    "a tensor of a trillion": (
        r"an array of shape \[1000000, 1000000\]",
        lambda at: torch_archive(tensor_of("I1000000\nI1000000\n\x86", "I0\nI0\n\x86"), ("a/data/0", bytes(16))),
    ),
    "a network of one number": (
        "ask for far more",
        lambda at: saved({"mapping.fc0.weight": torch.zeros(1).expand(1 << 20, 1 << 20), **one_number()}),
    ),
    "a tensor beyond its storage": (
        "does not lie in its storage",
        lambda at: torch_archive(tensor_of("I4\n\x85", "I1\n\x85", offset=1), ("a/data/0", bytes(16))),
    ),
    "a negative stride": (
        "impossible strides",
        lambda at: torch_archive(tensor_of("I2\n\x85", "I-1\n\x85", offset=3), ("a/data/0", bytes(16))),
    ),
    "a storage of another size": (
        "16 bytes instead of",
        lambda at: torch_archive(tensor_of("I4\n\x85", "I1\n\x85", numel=1 << 40), ("a/data/0", bytes(16))),
    ),
    "a storage that is missing": (
        "'a/data/0' is missing",
        lambda at: torch_archive(tensor_of("I4\n\x85", "I1\n\x85")),
    ),
    "a bomb": ("unpacks to far more", lambda at: bomb()),
    "a bomb that lies": ("does not unpack to", lambda at: lying_member(bomb(), 1000)),
    "a bomb of numpy": ("unpacks to far more", lambda at: npz(npy("{}", bytes(1 << 27)))),
    "a million members": ("members", lambda at: many_members()),
    "members above each other": ("twice|lies over|another name", lambda at: overlapping()),
    "a member that comes twice": (
        "comes twice",
        lambda at: renamed_member(torch_archive(b"N.", ("a/data/0", b""), ("a/data/1", b"")), "a/data/1", "a/data/0"),
    ),
    "a member that leaves its folder": (
        "would leave its folder",
        lambda at: torch_archive(pickle.dumps({}, 2), ("../../" + CANARY, b"here")),
    ),
    "a member with a path from the root": (
        "would leave its folder",
        lambda at: torch_archive(pickle.dumps({}, 2), (str(at / CANARY), b"here")),
    ),
    "a member of another system": (
        "would leave its folder",
        lambda at: torch_archive(pickle.dumps({}, 2), ("C:\\" + CANARY, b"here")),
    ),
    "an encrypted archive": ("encrypted", lambda at: encrypted()),
    "an archive of pictures": (
        "archive of something else",
        lambda at: renamed_member(torch_archive(b"N."), "data.pkl", "data.png"),
    ),
    "an array of a trillion": (
        "bytes instead of",
        lambda at: npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }", bytes(64)),
    ),
    "a header of numpy that calls": (
        "header of its array is damaged",
        lambda at: npy("__import__('os').system('true')"),
    ),
    "a header of numpy that nests": ("header of its array is damaged", lambda at: npy("(" * 100)),
    "an array of python objects": (
        "array of numbers, not of",
        lambda at: npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", pickle.dumps([1])),
    ),
    "a header of safetensors beyond the end": (
        "of an unknown kind|a text",
        lambda at: struct.pack("<Q", 1 << 60) + b"{}",
    ),
    "a header that nests": ("no safetensors file", lambda at: safe(b'{"a":' + b"[" * 100_000)),
    "arrays above each other": (
        "does not follow its neighbour",
        lambda at: safe(
            {n: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for n in "ab"},
            bytes(16),
        ),
    ),
    "an array beyond the end": (
        "no safetensors file",
        lambda at: safe({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 99]}}, bytes(16)),
    ),
    "a network larger than its arrays": ("larger than its arrays|is damaged", lambda at: giant_network()),
    "a network of endless depth": ("mapping_layers is 1000000", lambda at: giant_network(mapping_layers=1_000_000)),
    # What is something else.
    "a web page": ("web page", lambda at: b"<!DOCTYPE html>\n<html><body>Too many requests</body></html>"),
    "another web page": ("web page", lambda at: b"\n\n <HTML><head></head></HTML>"),
    "a pointer": ("git-lfs", lambda at: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    "a text": ("a text", lambda at: b"These are not the weights you are looking for.\n" * 20),
    "an empty file": ("it is empty", lambda at: b""),
    "a packed archive": ("unpack it first", lambda at: b"\x1f\x8b\x08" + bytes(100)),
    "a picture": ("a picture", lambda at: b"\x89PNG\r\n" + bytes(100)),
    "noise": ("of an unknown kind", lambda at: np.random.default_rng(0).bytes(5000)),
    "a later protocol": ("protocol 6", lambda at: b"\x80\x06N."),
    "an unknown instruction": ("unknown instruction", lambda at: b"\x80\x02\xff."),
    "a table of other things": ("a dictionary of a", lambda at: pickle.dumps({"a": 1})),
    "a network of something else": ("a dictionary of weight", lambda at: saved({"weight": torch.zeros(3, 3, 3, 3)})),
}


def persistent(source: str):
    from checkpoint_files import Persistent

    made = Persistent("Generator", {"_parameters": {}, "_buffers": {}, "_modules": {}})
    reduce = made.__reduce__()
    reduce[1][0]["module_src"] = source
    return Calls(reduce[0], EasyDict(reduce[1][0]))


def one_number() -> dict[str, torch.Tensor]:
    """By what a StyleGAN2 is recognised, all of it one number."""
    return {"synthesis.b4.const": torch.zeros(1).expand(4, 4, 4), "mapping.w_avg": torch.zeros(1).expand(4)}


def nested(at: Path) -> bytes:
    return legacy_torch(f"cos\nsystem\n(S'{command(at)}'\ntR.".encode())


def nest(levels: int) -> bytes:
    inner = b"\x80\x02N."
    for _ in range(levels):
        opener = b"\x80\x02" + name("torch.storage._load_from_bytes")
        inner = opener + b"B" + struct.pack("<I", len(inner)) + inner + b"\x85R."
    return inner


def many_members() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(50_001):
            archive.writestr(f"{number}", b"")
    return buffer.getvalue()


def test_there_are_enough_of_them():
    assert len(HOSTILE) >= 90


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(case, tmp_path):
    message, make = HOSTILE[case]
    path = write(tmp_path / "network.pkl", make(tmp_path))
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match=message) as raised:
        saminv.load_generator(path)
    assert time.perf_counter() - start < SECONDS
    told = str(raised.value)
    assert told.startswith(f"{path} cannot be read: ") and "Supported are NVIDIA's" in told and len(told) < 1500
    assert {entry.name for entry in tmp_path.iterdir()} == {"network.pkl"}, "something in the file was executed"


def test_the_canary_would_sing(tmp_path):
    """Executed, these files do create it: the check above can fail."""
    for case in ("os.system, protocol 0", "posix.system", "eval", "subprocess"):
        pickle.loads(HOSTILE[case][1](tmp_path))
        (tmp_path / CANARY).unlink()


def test_a_folder_and_a_missing_file(tmp_path):
    (tmp_path / "inner").mkdir()
    with pytest.raises(CheckpointError, match="folder of something else: inner"):
        saminv.load_generator(tmp_path)
    with pytest.raises(CheckpointError, match="there is no such file"):
        saminv.load_generator(tmp_path / "network.pkl")
    with pytest.raises(CheckpointError, match="it is not a regular file"):
        read_checkpoint("/dev/zero")


WATCH = """
import sys
from pathlib import Path
from saminv import CheckpointError, load_generator
from saminv.bench.ceilings import peak_memory
for path in sorted(Path(sys.argv[1]).iterdir()):
    before = peak_memory()
    try:
        load_generator(path)
        outcome = "loaded"
    except CheckpointError:
        outcome = "refused"
    print(path.name, outcome, (peak_memory() - before) * 2**30 - path.stat().st_size, sep="\\t")
"""


def test_hostile_files_take_little_memory(tmp_path):
    """Each takes at most 512 MB beside its own size; all are read by one process, whose peak only rises."""
    folder, at = tmp_path / "files", tmp_path / "at"
    folder.mkdir()
    at.mkdir()
    for number, (_, make) in enumerate(HOSTILE.values()):
        write(folder / f"{number:03}.pkl", make(at))
    done = subprocess.run([sys.executable, "-c", WATCH, folder], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(rows) == len(HOSTILE) and {outcome for _, outcome, _ in rows} == {"refused"}
    assert max(float(rise) for _, _, rise in rows) <= MOST_MEMORY, rows
    assert not list(at.iterdir()), "something in a file was executed"


# Damage


def small_files() -> dict[str, bytes]:
    """One small file of each container."""
    data = golden("sg2ada_c_resnet32_clamp")
    state, kwargs = data.under("state/"), data.meta["generator_kwargs"]
    few = {name: x for name, x in golden("rosi_generator").under("state/").items() if x.numel() < 2000}
    array = io.BytesIO()
    np.save(array, np.ones((1, 18, 512), "f4"))
    state = {name: x for name, x in state.items() if x.numel() < 1000 or "b4" in name}
    return {
        "pickle": nvidia_pickle(state, kwargs),
        "pickle, protocol 5": nvidia_pickle(state, kwargs, 5),
        "torch archive": saved(rosinality_trainer(few)),
        "torch stream": saved(rosinality_trainer(few), zipped=False),
        "safetensors": serialise(few, {"a": "b"}),
        "npy": array.getvalue(),
    }


@pytest.mark.parametrize(
    "container", ["pickle", "pickle, protocol 5", "torch archive", "torch stream", "safetensors", "npy"]
)
def test_truncated_files_are_refused(container, tmp_path):
    content = small_files()[container]
    path = tmp_path / "network.pkl"
    for length in range(0, len(content), 1000):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_checkpoint(path)


def form_files() -> dict[str, Callable[[dict[str, torch.Tensor]], bytes]]:
    """For each naming of arrays a function from changed arrays to a file, and the arrays."""
    ada, rosi = golden("sg2ada_c_resnet32_clamp"), golden("rosi_generator")
    hammer = golden("padinv_generator")
    return {
        "nvlabs": (ada.under("state/"), lambda x: nvidia_pickle(x, ada.meta["generator_kwargs"])),
        "rosinality": (rosi.under("state/"), lambda x: saved({"g_ema": x, "latent_avg": torch.zeros(48)})),
        "genforce": (hammer.under("state/"), lambda x: saved({"generator": x, "generator_smooth": x})),
    }


NAMED = {
    "nvlabs": re.compile(r"b16\.conv1|layers\.4\."),
    "rosinality": re.compile(r"convs\.1\.|layers\.2\."),
    "genforce": re.compile(r"layer3\.|layers\.3\."),
}
"""How an error calls the changed layer, by the name of the file or by ours."""
CHANGED = {
    "nvlabs": "synthesis.b16.conv1.weight",
    "rosinality": "convs.1.conv.weight",
    "genforce": "synthesis.layer3.weight",
}


@pytest.mark.parametrize("form", CHANGED)
def test_parameters_that_do_not_fit_are_refused(form, tmp_path):
    arrays, make = form_files()[form]
    name, path = CHANGED[form], tmp_path / "network.pkl"
    saminv.load_generator(write(path, make(arrays)))
    wrong = {
        "missing": {key: x for key, x in arrays.items() if key != name},
        "extra": {**arrays, name.replace("weight", "wobble"): torch.zeros(3)},
        "mis-shaped": {**arrays, name: arrays[name][..., :1].contiguous()},
        "transposed": {**arrays, name: arrays[name].flatten()},
        "not a number": {**arrays, name: arrays[name].clone().index_fill_(-1, torch.tensor([1]), float("nan"))},
        "infinite": {**arrays, name: arrays[name] / 0},
        "too large": {**arrays, name: arrays[name].double() * 1e300},
        "whole numbers": {**arrays, name: arrays[name].long()},
    }
    for what, changed in wrong.items():
        with pytest.raises(CheckpointError, match="cannot be read") as raised:
            saminv.load_generator(write(path, make(changed)))
        assert NAMED[form].search(str(raised.value)), f"{what}: {raised.value}"


def test_the_other_byte_order_is_read(tmp_path):
    direction = np.random.default_rng(1).normal(size=(1, 512))
    for kind in (">f4", "<f4", ">f8", "<f8", ">f2"):
        np.save(tmp_path / "a.npy", direction.astype(kind))
        found = read_checkpoint(tmp_path / "a.npy").arrays["direction"]
        assert np.array_equal(found.numpy(), direction.astype(kind).astype(kind.replace(">", "<")))
        found = read_checkpoint(write(tmp_path / "a.pkl", pickled(direction.astype(kind)))).arrays["direction"]
        assert np.array_equal(found.numpy(), direction.astype(kind).astype(kind.replace(">", "<")))
    np.save(tmp_path / "a.npy", direction.astype("c16"))
    with pytest.raises(CheckpointError, match="array of numbers, not of"):
        read_checkpoint(tmp_path / "a.npy")
    table = {"a": torch.from_numpy(direction).float()}
    content = saved(table)
    assert b"little" in content
    swapped = table["a"].numpy().byteswap().tobytes()
    big = content.replace(table["a"].numpy().tobytes(), swapped).replace(b"little", b"big\0\0\0")
    assert len(big) == len(content)


def test_settings_that_repeat_themselves_are_cut_short(tmp_path):
    """Settings of a valid file that unfold without end do no harm."""
    data = golden("rosi_generator")
    again: dict = {}
    for _ in range(40):
        again = {str(k): again for k in range(20)}
    content = {**rosinality_trainer(data.under("state/")), "args": {"size": 64, "again": again}}
    start = time.perf_counter()
    found = read_checkpoint(write(tmp_path / "a.pt", saved(content)))
    assert found.settings["size"] == 64 and time.perf_counter() - start < SECONDS


def test_memory_is_measured():
    """The measure that the test above relies on counts what is allocated."""
    code = (
        "from saminv.bench.ceilings import peak_memory as peak; a = peak(); b = bytes([1]) * 2**28; print(peak() - a)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(0.25, abs=0.02)

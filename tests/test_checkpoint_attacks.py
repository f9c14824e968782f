"""More files of an attacker who has read the interpreter of pickles: by every function that reads files.

Each is refused or read, without a crash, without anything of it being run, and within bounds of memory and time, which
``test_checkpoint_hostile.py`` watches for the files there.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import time
import zipfile

import numpy as np
import pytest
import torch
from checkpoint_files import Network, pickled, saved, write
from helpers import golden
from test_checkpoint_hostile import CANARY, legacy_torch, name, npy, safe, stack_name, storage_of, tensor_of, text
from test_checkpoint_hostile import torch_archive as archive_of

import saminv
from saminv import CheckpointError
from saminv.checkpoints import read_arrays, read_checkpoint, read_values

READERS = (read_checkpoint, saminv.load_generator, read_values, read_arrays)
SECONDS = 20


def reference(kind: bytes, key: bytes, count: bytes) -> bytes:
    """A pickle of a reference to a storage, of any parts."""
    return b"\x80\x02(" + text("storage") + kind + key + text("cpu") + count + b"tQ."


def numpy_type(code: str) -> bytes:
    return name("numpy.dtype") + b"(" + text(code) + b"K\x00K\x01tR"


def numpy_array(code: str, shape: bytes, content: bytes) -> bytes:
    made = name("numpy.core.multiarray._reconstruct") + b")R"
    return b"\x80\x02" + made + b"(K\x01" + shape + numpy_type(code) + b"\x89" + content + b"tb."


def shared(opening: bytes, closing: bytes, levels: int = 60, first: int = 1000) -> bytes:
    """Containers that hold each the one before twice: without sharing there would be as many as atoms in the world."""

    def place(code: bytes, level: int) -> bytes:
        return code + struct.pack("<I", first + level)

    steps = (
        b"0" + opening + b"(" + text("a") + place(b"j", k) + text("b") + place(b"j", k) + closing + place(b"r", k + 1)
        for k in range(levels)
    )
    return b"}" + place(b"r", 0) + b"".join(steps)


def module(children: bytes = b"") -> bytes:
    """A call that makes a module with these entries of its table of modules."""
    tables = text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + b"}" + children
    return (
        name("torch_utils.persistence._reconstruct_persistent_obj") + b"}" + text("state") + b"}(" + tables + b"us\x85R"
    )


def shared_modules(levels: int) -> bytes:
    made = module() + b"r" + struct.pack("<I", 0)
    for k in range(1, levels):
        before = b"j" + struct.pack("<I", k - 1)
        made += b"0" + module(b"(" + text("a") + before + text("b") + before + b"u") + b"r" + struct.pack("<I", k)
    return b"\x80\x02}" + text("G_ema") + made + b"s."


def with_settings(settings: bytes) -> bytes:
    """A sound generator of rosinality, with any pickle as its settings."""
    data = golden("rosi_generator")
    content = saved({"g_ema": data.under("state/"), "latent_avg": data["in/latent_avg"], "args": "HERE"})
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(result, "w") as new:
        for member in old.namelist():
            new.writestr(member, old.read(member).replace(text("HERE"), settings))
    return result.getvalue()


def network_in_itself() -> bytes:
    network = Network(
        version=4,
        name="Gs",
        static_kwargs={},
        components={},
        build_func_name="G_main",
        variables=[("4x4/Conv/mod_weight", np.ones((3, 3), "f4"))],
    )
    network.components.update(a=network, b=network)
    return pickled((network, network, network))


SOUND = archive_of(tensor_of("I4\n\x85", "I1\n\x85"), ("a/data/0", bytes(16)))


def entry(offset: int, content: bytes) -> bytes:
    """A sound archive, whose list says something else about its last member."""
    place = SOUND.rindex(b"PK\1\2") + offset
    return SOUND[:place] + content + SOUND[place + len(content) :]


def wide_end(*lies: int) -> bytes:
    """A sound archive with an end of the kind for large ones: members, bytes and place of its list."""
    place = SOUND.rindex(b"PK\5\6")
    record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, lies[0], *lies)
    return SOUND[:place] + record + b"PK\6\7" + struct.pack("<IQI", 0, place, 1) + SOUND[place:]


def pyramid(pattern: str, **more: torch.Tensor) -> bytes:
    """A network of one channel and of a picture of 2**19 pixels a side, without noise."""
    found = {pattern.format(k=k, side=4 << k): torch.ones(1, 1, 3, 3) for k in range(18)}
    return saved({**found, **more})


def hammer3(**more: torch.Tensor) -> bytes:
    ones = {"mapping.dense0.weight": torch.ones(4, 4), "synthesis.early_layer.frequency": torch.ones(2, 2)}
    grid = torch.zeros(1).expand(1, 36, 36, 2)
    return saved({**ones, "w_avg": torch.zeros(4), "synthesis.early_layer.grid": grid, **more})


ATTACKS: dict[str, bytes] = {
    # References to storages.
    "a number as a reference": archive_of(b"\x80\x02K\x05Q."),
    "an empty reference": archive_of(b"\x80\x02)Q."),
    "a list as a kind": archive_of(reference(b"]", text("0"), b"K\x04")),
    "a number as a key": archive_of(reference(name("torch.FloatStorage"), b"K\x00", b"K\x04")),
    "a truth as a size": archive_of(reference(name("torch.FloatStorage"), text("0"), b"\x88"), ("a/data/0", bytes(4))),
    "a key that leaves its folder": archive_of(reference(name("torch.FloatStorage"), text("../../../0"), b"K\x04")),
    "storages that never come": legacy_torch(
        b"\x80\x02](" + b"".join(storage_of(1 << 40, str(k)).replace(b"tQ", b"NtQ") for k in range(1000)) + b"e."
    ),
    # Filling what is not to be filled.
    "attributes for a name": b"\x80\x02" + name("collections.OrderedDict") + b"}" + text("make") + text("a") + b"sb.",
    "an entry for a name": b"\x80\x02" + name("collections.OrderedDict") + text("a") + text("b") + b"s.",
    "attributes of a class": b"\x80\x02" + name("argparse.Namespace") + b")RN}" + text("__class__") + b"Ns\x86b.",
    "keywords that are none": b"\x80\x04" + stack_name("collections", "OrderedDict") + b")K\x05\x92.",
    "a class that is called by its module": b"\x80\x04" + stack_name("op", "System") + text("true") + b"\x85R.",
    # Types and arrays.
    "a type of fields": numpy_array("f4,O", b"K\x01\x85", b"C\x04aaaa"),
    "a type of objects": numpy_array("|O", b"K\x01\x85", b"C\x08aaaaaaaa"),
    "truths as a shape": numpy_array("f4", b"\x88\x85", b"C\x04aaaa"),
    "a shape of none of a trillion": numpy_array("f4", b"\x8a\x06\xff\xff\xff\xff\xff\x00K\x00\x86", b"C\x00"),
    "a header of two thousand brackets": npy("[" * 2000),
    # Sharing.
    "shared dictionaries": b"\x80\x02" + shared(b"}", b"u") + b".",
    "shared namespaces": b"\x80\x02" + shared(name("argparse.Namespace") + b")R}", b"ub") + b".",
    "shared settings": with_settings(shared(b"}", b"u")),
    "settings in themselves": with_settings(b"}r\x00\x01\x00\x00" + text("a") + b"j\x00\x01\x00\x00s"),
    "a size of 500 bits": with_settings(b"}" + text("size") + b"\x8a\x40" + b"\xff" * 63 + b"\x00s"),
    "shared modules": shared_modules(25),
    "a network in itself": network_in_itself(),
    # Archives.
    "a member at the place of another": entry(42, struct.pack("<I", 0)),
    "a member beyond the end": entry(42, struct.pack("<I", 0xFFFFFFF0)),
    "a size that stands nowhere": entry(20, struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF)),
    "a list of a trillion members": wide_end(1 << 60, 100, 0),
    "a list beyond the end": wide_end(3, 100, 1 << 63),
    "a list of all there is": wide_end(3, (1 << 64) - 1, 0),
    # Headers of safetensors.
    "places that are fractions": safe({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0.0, 16.0]}}, bytes(16)),
    "places that are endless": safe(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[Infinity,1]}}', bytes(16)),
    "places before the beginning": safe({"a": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}}, bytes(16)),
    "a million digits": safe(b'{"a":{"dtype":"F32","shape":[' + b"9" * 1_000_000 + b'],"data_offsets":[0,16]}}'),
    "a list as a type": safe({"a": {"dtype": [], "shape": [4], "data_offsets": [0, 16]}}, bytes(16)),
    "a description of anything": safe(
        {"__metadata__": {"format": "saminv.checkpoint.1", "checkpoint": json.dumps({"kind": [], "decoder": 5})}}
    ),
    # Networks whose file is far smaller than they would be.
    "noise for an enormous picture": pyramid(
        "synthesis.b{side}.conv1.weight",
        **{"mapping.fc0.weight": torch.ones(4, 4), "synthesis.b4.const": torch.ones(1, 4, 4)},
        **{f"synthesis.b{4 << 17}.torgb.weight": torch.ones(3, 1, 1, 1)},
    ),
    "noise for another enormous picture": pyramid(
        "to_rgbs.{k}.conv.weight",
        **{f"convs.{2 * k}.conv.weight": torch.ones(1, 1, 1, 3, 3) for k in range(18)},
        **{"style.1.weight": torch.ones(4, 4), "conv1.conv.modulation.weight": torch.ones(4, 4)},
        **{"conv1.conv.weight": torch.ones(1, 1, 1, 3, 3)},
    ),
    "an enormous grid": hammer3(**{"synthesis.early_layer.grid": torch.zeros(1).expand(1, 1 << 40, 1, 1)}),
    "grids that double without end": hammer3(
        **{f"synthesis.layer{k}.conv.weight": torch.ones(1, 1, 1, 1) for k in range(64)},
        **{f"synthesis.layer{k}.filter.up_filter": torch.ones(60) for k in range(64)},
        **{f"synthesis.layer{k}.filter.down_filter": torch.ones(1) for k in range(64)},
    ),
}


@pytest.mark.parametrize("case", ATTACKS)
def test_attacks_are_refused_or_read(case, tmp_path):
    path = write(tmp_path / "network.pkl", ATTACKS[case])
    begin = time.monotonic()
    for reader in READERS:
        try:
            reader(path)
        except CheckpointError as error:
            assert str(error).startswith(str(path)) and str(error).isprintable()
    assert time.monotonic() - begin < SECONDS
    assert not (tmp_path / CANARY).exists() and {entry.name for entry in tmp_path.iterdir()} == {"network.pkl"}


ENORMOUS = [case for case in ATTACKS if "enormous" in case or "double" in case]


@pytest.mark.parametrize("case", [*ENORMOUS, "settings in themselves", "a size of 500 bits"])
def test_no_network_is_made_of_an_attack(case, tmp_path):
    path = write(tmp_path / "network.pkl", ATTACKS[case])
    if case == "settings in themselves":
        # They are sound but for what they say about themselves, which nothing needs.
        assert saminv.load_generator(path).image_size == (64, 64)
        return
    made_up = "no noise, which cannot be made up" if case.startswith("noise") else None
    with pytest.raises(CheckpointError, match=made_up):
        saminv.load_generator(path)


def test_checksums_of_archives(tmp_path):
    place = SOUND.index(bytes(16))
    path = write(tmp_path / "a.pt", SOUND[: place + 7] + b"\1" + SOUND[place + 8 :])
    with pytest.raises(CheckpointError, match="'a/data/0' is damaged: its checksum is another one"):
        read_checkpoint(path)
    # torch can be told to compute none.
    last = path.read_bytes().rindex(b"PK\1\2") + 16
    write(path, path.read_bytes()[:last] + bytes(4) + path.read_bytes()[last + 4 :])
    assert read_checkpoint(path).kind == "directions"


def test_messages_do_not_control_the_terminal(tmp_path, capsys):
    from saminv.cli import main

    path = write(tmp_path / "a.pkl", pickle.dumps({"\x1b[2Jgone": 1, "\ud800": 2}))
    with pytest.raises(CheckpointError, match=r"\\x1b\[2Jgone, \\ud800"):
        read_checkpoint(path)
    assert main(["inspect", str(path)]) != 0
    assert "\x1b[2J" not in "".join(capsys.readouterr())

"""Discriminators of StyleGAN2 in files: which network of a file is one, and its arrays under our names.

Read are residual ones without classes: those of NVIDIA's PyTorch code and of rosinality, and those of our trainings.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._errors import CheckpointError
from ._contents import Contents, read_json
from ._forms import nvidia_pytorch, own_file, stated_settings
from ._found import Checkpoint
from ._pickle import Record
from ._stand_ins import TENSORFLOW_NETWORK
from ._trees import Table, check_numbers, describe, gather, is_module, listed, table_of

TRAINING, NOTE, CRITIC = "checkpoint.pt", "run.json", "critic"
"""What our trainings leave: their state, beside it how they were begun, and in the state the discriminator's name."""
GROUP = 4
"""Images whose variety published networks look at, where a file does not say."""
_KEYS = ("d", "D", "discriminator")
_SIGNATURES = {
    "nvlabs": ("b4.conv.weight", "b4.out.weight"),
    "rosinality": ("convs.0.0.weight", "final_linear.1.weight"),
}
_NVLABS = re.compile(
    r"(?:b(?P<side>\d{1,6})\.(?P<layer>fromrgb|conv0|conv1|skip)|b4\.(?P<final>conv|fc|out))\.(?P<kind>weight|bias)"
)
_ROSINALITY = re.compile(
    r"(?:convs\.(?P<block>\d{1,6})\.(?P<layer>0|1|(?:conv1|conv2|skip)\.\d)|final_(?P<final>conv\.\d|linear\.\d))"
    r"\.(?P<kind>weight|bias)"
)
_NVLABS_LAYERS = {"conv0": "first", "conv1": "second", "skip": "skip"}
_NVLABS_ENDS = {"conv": "last", "fc": "hidden", "out": "out"}
_ROSINALITY_LAYERS = {
    ("conv1.0", "weight"): "first",
    ("conv1.1", "bias"): "first",
    ("conv2.1", "weight"): "second",
    ("conv2.2", "bias"): "second",
    ("skip.1", "weight"): "skip",
}
_ROSINALITY_ENDS = {
    ("conv.0", "weight"): "last",
    ("conv.1", "bias"): "last",
    ("linear.0", "weight"): "hidden",
    ("linear.0", "bias"): "hidden",
    ("linear.1", "weight"): "out",
    ("linear.1", "bias"): "out",
}


def find_discriminator(contents: Contents, path: Path) -> Checkpoint:
    """The discriminator in a file, by the names of the file.

    Raises:
        CheckpointError: If there is none of a known kind; says what there is.
    """
    root = contents.root
    found = own_file(contents, None)
    if found is None and _is_training(root):
        found = _of_training(contents, path)
    if found is None and (is_module(root) or (isinstance(root, dict) and any(map(is_module, root.values())))):
        found = nvidia_pytorch(contents, None if is_module(root) else "D")
    found = found or _state(contents)
    if found is None:
        raise CheckpointError(f"it holds no discriminator, but is a {contents.container} with {_described(root)}")
    if found.kind != "discriminator":
        raise CheckpointError(f"it holds no discriminator, but something of the kind {found.kind!r} ({found.form})")
    return found


def our_discriminator(found: Checkpoint) -> Checkpoint:
    """The same with float32 arrays by our names, and the keywords of our discriminator as its settings.

    Raises:
        CheckpointError: If an array is missing, unknown, not finite or of an impossible shape, or if it is a network
            that ours is not.
    """
    renamed = {"nvlabs": _from_nvlabs, "rosinality": _from_rosinality, "saminv": _from_ours}.get(found.names)
    if renamed is None:
        raise CheckpointError(f"its discriminator is from a {found.form}, whose discriminators are not read")
    if found.names == "saminv":
        settings = _own_settings(found.settings)
    else:
        _check_kind(found)
        settings = _published_settings(found.settings)
    check_numbers(found.arrays)
    theirs = renamed(found.arrays)
    table = _channels(found.arrays, theirs)
    side = 2 << len(table)
    for stated in ("img_resolution", "size"):
        if found.settings.get(stated, side) != side:
            raise CheckpointError(f"its settings say {stated} {found.settings[stated]!r}, but its arrays {side}")
    arrays = {ours: found.arrays[name].float() for ours, name in theirs.items()}
    settings |= {"resolution": side, "channel_table": list(table)}
    return replace(found, names="saminv", arrays=arrays, settings=settings)


# Where it is


def _is_training(root: Any) -> bool:
    return isinstance(root, dict) and isinstance(root.get("extra"), dict) and {"step", "average"} <= root.keys()


def _of_training(contents: Contents, path: Path) -> Checkpoint:
    """That of a training of ours; what its arrays do not show stands in the note beside it."""
    table = table_of(contents.root["extra"].get(CRITIC))
    if table is None:
        raise CheckpointError("it is a training of saminv without a discriminator")
    noted = read_json(path.parent / NOTE, "its note")
    arrays = gather(table, contents.budget)
    return Checkpoint("discriminator", "stylegan2", "training of saminv", "saminv", arrays, noted, part=CRITIC)


def _state(contents: Contents) -> Checkpoint | None:
    """A state dictionary, under one of the usual names or alone."""
    root = contents.root
    inner = root.get("models", root) if isinstance(root, dict) else None
    tables: dict[str, Table | None] = {}
    if isinstance(inner, dict):
        tables = {name: table_of(inner.get(name)) for name in _KEYS}
    named = {name: table for name, table in tables.items() if table}
    for part, table in (*named.items(), ("", table_of(root))):
        for names, needed in _SIGNATURES.items():
            if table and all(name in table for name in needed):
                arrays, form = gather(table, contents.budget), f"state dictionary of {names}"
                settings = stated_settings(root) if names == "rosinality" else {}
                return Checkpoint("discriminator", "stylegan2", form, names, arrays, settings, part)
    for part, table in named.items():
        raise CheckpointError(f"its {part!r} is a discriminator of an unknown kind with {listed(table)}")
    return None


def _described(root: Any) -> str:
    networks = root if isinstance(root, (tuple, list)) else (root,)
    if networks and all(isinstance(value, Record) and value.kind == TENSORFLOW_NETWORK for value in networks):
        return (
            "networks of NVIDIA's TensorFlow code, whose discriminators are not read; convert it by legacy.py of "
            "stylegan2-ada-pytorch first"
        )
    return describe(root)


# What it is


def _check_kind(found: Checkpoint) -> None:
    """Refuse published networks that ours is not, by the names of their arrays and by what is said beside these."""
    settings, arrays = found.settings, found.arrays
    classes = settings.get("c_dim", 0)
    if classes or any(name.startswith("mapping.") for name in arrays):
        raise CheckpointError(
            f"its discriminator is conditional ({classes or 'some'} classes); supported are those without classes"
        )
    stated = settings.get("architecture", "resnet")
    colours = sum(name.endswith("fromrgb.weight") for name in arrays)
    skips = any("skip." in name for name in arrays)
    architecture = "skip" if colours > 1 else "resnet" if skips else "orig"
    for kind in (stated, architecture):
        if kind != "resnet":
            raise CheckpointError(f"its discriminator has the architecture {kind!r}; supported is 'resnet'")
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    for name, array in arrays.items():
        if name.endswith(("resample_filter", ".kernel")):
            kernel = torch.outer(array.float(), array.float()) if array.shape == (4,) else array.float()
            if kernel.shape != (4, 4) or not torch.allclose(kernel, torch.outer(taps, taps), atol=1e-4):
                raise CheckpointError(f"its {name} is not the filter 1, 3, 3, 1, which is the only supported one")


def _published_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Group and clamp; what the layers say about themselves goes before the keywords of the constructor."""
    epilogue = settings.get("epilogue_kwargs")
    epilogue = epilogue if isinstance(epilogue, Mapping) else {}
    stated = {"mbstd_group_size": GROUP, "mbstd_num_channels": 1, **epilogue, **settings}
    group, clamp = stated["mbstd_group_size"], stated.get("conv_clamp")
    if stated["mbstd_num_channels"] != 1:
        raise CheckpointError(
            f"its discriminator has {stated['mbstd_num_channels']!r} channels for the variety of a batch "
            "(mbstd_num_channels); supported is 1"
        )
    _check_numbers(group, clamp)
    return {"group": group, "filtered": True, "clamp": None if clamp is None else float(clamp)}


def _own_settings(note: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a training's note: trainings of generators say a group, those of encoders how their network began."""
    training, began = note.get("training"), note.get("discriminator")
    if not isinstance(training, dict) or not isinstance(began, (dict, type(None))):
        raise CheckpointError(f"{NOTE} beside it is damaged, or no note of a training")
    # Those that began untrained have the options' defaults.
    stated = {"group": training.get("group"), "filtered": False, "clamp": None, **(began or {})}
    _check_numbers(stated["group"], stated["clamp"])
    return {"group": stated["group"], "filtered": stated["filtered"] is True, "clamp": stated["clamp"]}


def _check_numbers(group: Any, clamp: Any) -> None:
    is_group = group is None or (type(group) is int and group > 0)
    is_clamp = clamp is None or (type(clamp) in (int, float) and 0 < clamp < math.inf)
    if not (is_group and is_clamp):
        raise CheckpointError(
            f"its discriminator sees the variety of {group!r} images and clamps to {clamp!r}; one of these is wrong"
        )


# Names


def _from_nvlabs(arrays: Iterable[str]) -> dict[str, str]:
    """Names of a file by ours."""
    matches = {n: _known(n, _NVLABS.fullmatch(n)) for n in arrays if not n.endswith("resample_filter")}
    sides = sorted({int(match["side"]) for match in matches.values() if match["side"]}, reverse=True)
    if not sides or sides[::-1] != [8 << k for k in range(len(sides))]:
        raise CheckpointError(f"its discriminator has blocks for {listed(sides)} pixels; needed are 8, 16 and so on")
    found = {}
    for name, match in matches.items():
        side, layer, kind = match["side"], match["layer"], match["kind"]
        if match["final"]:
            ours = _NVLABS_ENDS[match["final"]]
        elif layer == "fromrgb":
            ours = "entry" if int(side) == sides[0] else _known(name, None).string
        else:
            ours = f"blocks.{sides.index(int(side))}.{_NVLABS_LAYERS[layer]}"
        found[f"{ours}.{kind}"] = name
    return found


def _from_rosinality(arrays: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in arrays:
        if name.endswith(".kernel"):
            continue
        match = _known(name, _ROSINALITY.fullmatch(name))
        block, layer, kind = match["block"], match["layer"], match["kind"]
        if match["final"]:
            ours = _ROSINALITY_ENDS.get((match["final"], kind))
        elif block == "0":
            ours = "entry" if (layer, kind) in (("0", "weight"), ("1", "bias")) else None
        else:
            inner = _ROSINALITY_LAYERS.get((layer, kind))
            ours = inner and f"blocks.{int(block) - 1}.{inner}"
        if ours is None:
            _known(name, None)
        found[f"{ours}.{kind}"] = name
    return found


def _from_ours(arrays: Iterable[str]) -> dict[str, str]:
    return {name: name for name in arrays}


def _known(name: str, match: re.Match[str] | None) -> re.Match[str]:
    if match is None:
        raise CheckpointError(f"its {name[:80]} is no array of a residual discriminator of StyleGAN2")
    return match


def _channels(arrays: Mapping[str, Tensor], theirs: Mapping[str, str]) -> tuple[int, ...]:
    """Channels at 4, 8 and so on, after all arrays turned out to be there with the shapes that follow from them."""
    blocks = 1 + max((int(m[1]) for name in theirs if (m := re.match(r"blocks\.(\d+)\.", name))), default=-1)
    if not blocks or blocks > len(theirs):
        raise CheckpointError("its discriminator has no blocks, or lacks some")
    kernels = ("entry.weight", *(f"blocks.{k}.second.weight" for k in range(blocks)))
    missing = [name for name in kernels if name not in theirs]
    if missing:
        raise CheckpointError(f"its discriminator lacks arrays, such as {missing[0]}")
    table = [int(arrays[theirs[name]].shape[0]) if arrays[theirs[name]].dim() else 0 for name in kernels]
    if min(table) < 1:
        raise CheckpointError("its discriminator has a layer without channels")
    expected = _shapes(table)
    missing = [name for name in expected if name not in theirs]
    unknown = [theirs[name] for name in theirs if name not in expected]
    if missing or unknown:
        told = f"lacks arrays, such as {missing[0]}" if missing else f"has the unknown array {unknown[0][:80]}"
        raise CheckpointError(f"its discriminator {told}")
    for name, shape in expected.items():
        found = tuple(arrays[theirs[name]].shape)
        if found != shape:
            raise CheckpointError(f"its {theirs[name]} is {list(found)}, not {list(shape)}")
    return tuple(table[::-1])


def _shapes(channels: list[int]) -> dict[str, tuple[int, ...]]:
    """Shapes of all arrays by our names, for channels from the largest resolution down."""
    first, last = channels[0], channels[-1]
    found: dict[str, tuple[int, ...]] = {"entry.weight": (first, 3, 1, 1), "entry.bias": (first,)}
    for k, (a, b) in enumerate(itertools.pairwise(channels)):
        found |= {f"blocks.{k}.first.weight": (a, a, 3, 3), f"blocks.{k}.first.bias": (a,)}
        found |= {f"blocks.{k}.second.weight": (b, a, 3, 3), f"blocks.{k}.second.bias": (b,)}
        found[f"blocks.{k}.skip.weight"] = (b, a, 1, 1)
    found |= {"last.weight": (last, last + 1, 3, 3), "last.bias": (last,)}
    found |= {"hidden.weight": (last, 16 * last), "hidden.bias": (last,)}
    return found | {"out.weight": (1, last), "out.bias": (1,)}

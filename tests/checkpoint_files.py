"""Writers of the checkpoint forms that people have, with the names of classes that the published codes use.

The classes are empty shells in made-up modules, so that pickles refer to them as real files do. Arrays and constructor
keywords come from the golden files, or from a toy network.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
import types
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SOURCE = "raise SystemExit('the source code of a checkpoint was run')\n" * 400
"""What files carry as the source code of their classes; whoever runs it, notices."""
BUFFERS = ("resample_filter", "noise_const", "w_avg", "magnitude_ema", "up_filter", "down_filter", "freqs", "phases")


class EasyDict(dict):
    """A dictionary with attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


EasyDict.__module__, EasyDict.__qualname__ = "dnnlib.util", "EasyDict"


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError("a checkpoint was unpickled by executing it")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class Persistent:
    """An object of NVIDIA's persistent classes."""

    def __init__(self, class_name: str, state: dict[str, Any]) -> None:
        self.class_name, self.state = class_name, state

    def __reduce__(self) -> tuple[Any, tuple[Any]]:
        meta = EasyDict(type="class", version=6, module_src=SOURCE, class_name=self.class_name, state=self.state)
        return _reconstruct_persistent_obj, (meta,)


class Network:
    """A network of NVIDIA's TensorFlow code."""

    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)


Network.__module__, Network.__qualname__ = "dnnlib.tflib.network", "Network"


@contextlib.contextmanager
def made_up_modules() -> Iterator[None]:
    """Modules of the published codes, for pickle to find their classes in; gone again afterwards."""
    contents = {
        "dnnlib": {},
        "dnnlib.util": {"EasyDict": EasyDict},
        "dnnlib.tflib": {},
        "dnnlib.tflib.network": {"Network": Network},
        "torch_utils": {},
        "torch_utils.persistence": {"_reconstruct_persistent_obj": _reconstruct_persistent_obj},
    }
    made = {name: types.ModuleType(name) for name in contents}
    for name, module in made.items():
        vars(module).update(contents[name])
    before = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def pickled(value: Any, protocol: int = 3, old_numpy: bool = True) -> bytes:
    """A pickle; with ``old_numpy`` as numpy 1 wrote it."""
    with made_up_modules():
        content = pickle.dumps(value, protocol)
    # The two names differ in length, which only protocols without lengths before names allow.
    return content.replace(b"cnumpy._core.", b"cnumpy.core.") if old_numpy and protocol < 4 else content


def saved(value: Any, zipped: bool = True) -> bytes:
    """What ``torch.save`` writes."""
    buffer = io.BytesIO()
    with made_up_modules():
        torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _class_of(name: str, parts: Mapping[str, Any]) -> str:
    leaf = name.rpartition(".")[2]
    if leaf in ("mapping", "synthesis"):
        return "MappingNetwork" if leaf == "mapping" else "SynthesisNetwork"
    if leaf.startswith("b") and leaf[1:].isdigit():
        return "SynthesisBlock"
    return "FullyConnectedLayer" if leaf.startswith(("fc", "affine", "embed")) else "SynthesisLayer"


def persistent_module(
    state: Mapping[str, Tensor],
    name: str = "",
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    init_kwargs: Mapping[str, Any] | None = None,
) -> Persistent:
    """A module tree of a state dictionary, each module an object of a persistent class.

    Args:
        state: Arrays by their names in the whole network.
        name: Of this module; the network itself where empty.
        attributes: Further attributes by name of the module.
        init_kwargs: Keywords of the network's constructor.
    """
    prefix = f"{name}." if name else ""
    own = {key[len(prefix) :]: tensor for key, tensor in state.items() if key.startswith(prefix)}
    children = dict.fromkeys(key.split(".")[0] for key in own if "." in key)
    arrays = {key: tensor for key, tensor in own.items() if "." not in key}
    fields: dict[str, Any] = {
        "training": False,
        "_parameters": OrderedDict((k, torch.nn.Parameter(v, False)) for k, v in arrays.items() if k not in BUFFERS),
        "_buffers": OrderedDict((k, v) for k, v in arrays.items() if k in BUFFERS),
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": OrderedDict(),
        "_modules": OrderedDict((child, persistent_module(state, prefix + child, attributes)) for child in children),
        "act_gain": np.float64(np.sqrt(2)),
        "_init_args": (),
        "_init_kwargs": EasyDict(init_kwargs or {}),
    }
    if not name.endswith("torgb"):
        fields["_buffers"]["absent"] = None
    fields.update((attributes or {}).get(name, {}))
    return Persistent(_class_of(name, children) if name else "Generator", fields)


def stylegan2_attributes(
    state: Mapping[str, Tensor], architecture: str, clamp: float | None, multiplier: float
) -> dict[str, dict[str, Any]]:
    """What the layers of NVIDIA's StyleGAN2 say about themselves."""
    found: dict[str, dict[str, Any]] = {}
    for name in state:
        parts = name.split(".")
        if parts[0] == "synthesis":
            found[".".join(parts[:2])] = {"architecture": architecture}
            if len(parts) > 3 and parts[2] in ("conv0", "conv1", "torgb"):
                layer = {"conv_clamp": clamp} | ({"activation": "lrelu"} if parts[2] != "torgb" else {})
                found[".".join(parts[:3])] = layer
        elif parts[1].startswith("fc"):
            found[".".join(parts[:2])] = {"bias_gain": multiplier, "activation": "lrelu"}
    return found


def nvidia_generator(state: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> Persistent:
    """A generator of NVIDIA's PyTorch code."""
    attributes = {}
    if "synthesis.b4.const" in state:
        inner = {**kwargs, **kwargs.get("synthesis_kwargs", {})}
        multiplier = kwargs.get("mapping_kwargs", {}).get("lr_multiplier", 0.01)
        attributes = stylegan2_attributes(state, inner.get("architecture", "skip"), inner.get("conv_clamp"), multiplier)
    else:
        attributes = {"synthesis.input": {"size": np.array([36, 36]), "transform_kept": np.eye(3)}}
    return persistent_module(state, attributes=attributes, init_kwargs=kwargs)


def nvidia_discriminator(state: Mapping[str, Tensor], kwargs: Mapping[str, Any] | None = None) -> Persistent:
    """A residual discriminator of NVIDIA's PyTorch code."""
    kwargs = dict(kwargs or {})
    clamp, shape = kwargs.get("conv_clamp"), kwargs.get("architecture", "resnet")
    taps = torch.outer(torch.tensor([1.0, 3.0, 3.0, 1.0]), torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64
    state, attributes = dict(state), {}
    for name in list(state):
        block, layer = name.split(".")[:2]
        attributes[block] = {"architecture": shape, "activation": "lrelu"}
        kind = {} if layer in ("fc", "out") else {"conv_clamp": None if layer == "skip" else clamp}
        attributes[f"{block}.{layer}"] = {"activation": "linear" if layer in ("skip", "out") else "lrelu", **kind}
        state[f"{block}.{layer}.resample_filter"] = taps
    module = persistent_module(state, attributes=attributes, init_kwargs=kwargs)
    variety = {"mbstd_group_size": 4, "mbstd_num_channels": 1, **kwargs.get("epilogue_kwargs", {})}
    fields = {name.removeprefix("mbstd_"): value for name, value in variety.items()}
    empty = {"_parameters": OrderedDict(), "_buffers": OrderedDict(), "_modules": OrderedDict()}
    module.state["_modules"]["b4"].state["_modules"]["mbstd"] = Persistent("MinibatchStdLayer", {**empty, **fields})
    module.class_name = "Discriminator"
    return module


def discriminator_names(blocks: int, form: str) -> dict[str, str]:
    """Published names of the arrays of our discriminator with so many blocks, "nvlabs" or "rosinality"."""
    found = {}
    for block in range(blocks):
        side, number = 4 << (blocks - block), block + 1
        nvlabs = {"first": f"b{side}.conv0", "second": f"b{side}.conv1", "skip": f"b{side}.skip"}
        rosinality = {
            "first": (f"convs.{number}.conv1.0", f"convs.{number}.conv1.1"),
            "second": (f"convs.{number}.conv2.1", f"convs.{number}.conv2.2"),
            "skip": (f"convs.{number}.skip.1", ""),
        }
        for layer in nvlabs:
            for k, kind in enumerate(("weight", "bias")[: 1 if layer == "skip" else 2]):
                place = nvlabs[layer] if form == "nvlabs" else rosinality[layer][k]
                found[f"blocks.{block}.{layer}.{kind}"] = f"{place}.{kind}"
    ends = {
        "nvlabs": {
            "entry": (f"b{4 << blocks}.fromrgb",) * 2,
            "last": ("b4.conv",) * 2,
            "hidden": ("b4.fc",) * 2,
            "out": ("b4.out",) * 2,
        },
        "rosinality": {
            "entry": ("convs.0.0", "convs.0.1"),
            "last": ("final_conv.0", "final_conv.1"),
            "hidden": ("final_linear.0",) * 2,
            "out": ("final_linear.1",) * 2,
        },
    }
    for layer, places in ends[form].items():
        found |= {f"{layer}.{kind}": f"{place}.{kind}" for kind, place in zip(("weight", "bias"), places)}
    return found


def rosinality_kernels(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Arrays of rosinality's discriminator with the filters that its files carry."""
    taps = torch.outer(torch.tensor([1.0, 3.0, 3.0, 1.0]), torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64
    blocks = {name.split(".")[1] for name in state if name.endswith("skip.1.weight")}
    return {**state, **{f"convs.{k}.{layer}.0.kernel": taps for k in blocks for layer in ("conv2", "skip")}}


def nvidia_pickle(
    state: Mapping[str, Tensor],
    kwargs: Mapping[str, Any],
    protocol: int = 3,
    averaged: bool = True,
    critic: Persistent | None = None,
) -> bytes:
    """A pickle of NVIDIA's PyTorch code: G, D, G_ema, keywords of the data, and the augmentation."""
    other = {name: tensor + 1 for name, tensor in state.items() if tensor.is_floating_point()}
    discriminator = critic or persistent_module(
        {"b4.out.weight": torch.ones(1, 4), "b8.conv0.weight": torch.ones(4, 4, 3, 3)}
    )
    content = {
        "training_set_kwargs": EasyDict(class_name="training.dataset.ImageFolderDataset", path="faces.zip"),
        "G": nvidia_generator(other if averaged else state, kwargs),
        "D": discriminator,
        **({"G_ema": nvidia_generator(state, kwargs)} if averaged else {}),
        "augment_pipe": None,
    }
    return pickled(content, protocol)


def tensorflow_network(
    name: str, variables: Mapping[str, Any], static: Mapping[str, Any], **components: Any
) -> Network:
    """A network of NVIDIA's TensorFlow code; 0-d variables are scalars of numpy."""
    return Network(
        version=4,
        name=name,
        static_kwargs=EasyDict(static),
        components=EasyDict(components),
        build_module_src=SOURCE,
        build_func_name=name,
        variables=[(key, np.asarray(value)[()]) for key, value in variables.items()],
    )


def tensorflow_pickle(
    variables: Mapping[str, Tensor], static: Mapping[str, Any], names: tuple[str, str, str], protocol: int = 3
) -> bytes:
    """A pickle of three networks; ``variables`` have a path such as "G_synthesis/" before the names.

    Args:
        variables: Of the averaged generator.
        static: Keywords of its build function.
        names: Names of the build functions of generator, synthesis and mapping.
    """
    arrays = {name: tensor.numpy() for name, tensor in variables.items()}

    def generator(change: float) -> Network:
        def part(prefix: str) -> dict[str, Any]:
            return {k.removeprefix(prefix): v + np.float32(change) for k, v in arrays.items() if k.startswith(prefix)}

        own = {k: v for k, v in arrays.items() if not k.startswith(("G_synthesis/", "G_mapping/"))}
        synthesis = tensorflow_network(names[1], part("G_synthesis/"), static)
        mapping = tensorflow_network(names[2], part("G_mapping/"), static)
        return tensorflow_network(names[0], own, static, synthesis=synthesis, mapping=mapping)

    critic = tensorflow_network("D_stylegan2", {"8x8/FromRGB/weight": np.ones((1, 1, 3, 4), np.float32)}, static)
    return pickled((generator(1.0), critic, generator(0.0)), protocol)


def as_tensorflow(state: Mapping[str, Tensor], lods: bool = False) -> dict[str, Tensor]:
    """Arrays under NVIDIA's PyTorch names as the variables that its TensorFlow code would have."""
    found: dict[str, Tensor] = {}
    last = max(int(name.split(".")[1][1:]) for name in state if name.startswith("synthesis.b"))
    for name, x in state.items():
        part, *rest = name.split(".")
        if part == "mapping":
            if rest[0] == "w_avg":
                found["dlatent_avg"] = x
            else:
                scope = "LabelEmbed" if rest[0] == "embed" else f"Dense{rest[0][2:]}"
                found[f"G_mapping/{scope}/{rest[1]}"] = x.t().contiguous()
            continue
        if name.endswith("resample_filter"):
            continue
        side = int(rest[0][1:])
        scope = f"G_synthesis/{side}x{side}"
        if rest[1] == "const":
            found[f"{scope}/Const/const"] = x[None]
            continue
        up = side > 4
        layer = {"conv0": "Conv0_up", "conv1": "Conv1" if up else "Conv", "torgb": "ToRGB", "skip": "Skip"}[rest[1]]
        if rest[-1] == "noise_const":
            number = 2 * (side.bit_length() - 3) - (rest[1] == "conv0")
            found[f"G_synthesis/noise{number}"] = x[None, None]
        elif rest[2] == "affine":
            change = x.t() if rest[3] == "weight" else x - 1
            found[f"{scope}/{layer}/mod_{rest[3]}"] = change.contiguous()
        elif rest[2] == "weight":
            kernel = x.flip(2, 3) if layer in ("Conv0_up", "Skip") else x
            found[f"{scope}/{layer}/weight"] = kernel.permute(2, 3, 1, 0).contiguous()
        else:
            found[f"{scope}/{layer}/{rest[2]}"] = x
    if lods:
        renamed = {}
        for name, x in found.items():
            renamed[name.replace(f"{last}x{last}/ToRGB/", "ToRGB_lod0/")] = x
        renamed["G_synthesis/ToRGB_lod1/weight"] = torch.ones(1, 1, 4, 3)
        found = {**renamed, "lod": torch.zeros(()), "G_synthesis/lod": torch.zeros(())}
    return found


def rosinality_trainer(state: Mapping[str, Tensor], **args: Any) -> dict[str, Any]:
    """What rosinality's trainer saves, without a mean latent."""
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.002, "params": [0]}]}
    return {
        "g": {name: tensor + 1 for name, tensor in state.items()},
        "d": {"convs.0.0.weight": torch.ones(4, 3, 1, 1)},
        "g_ema": OrderedDict(state),
        "g_optim": optimizer,
        "d_optim": optimizer,
        "args": Namespace(**{"path": "lmdb", "batch": 16, **args}),
        "ada_aug_p": 0.0,
    }


def write(path: Path, content: bytes) -> Path:
    """Write the bytes and return the path."""
    path.write_bytes(content)
    return path

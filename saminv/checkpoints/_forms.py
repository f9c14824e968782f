"""Which published form a file has: a function for each, from its contents to a checkpoint, or None.

A form is recognised by what is inside: classes, keys, names of arrays. How to add one: write such a function and enter
it in :data:`FORMS`; if its arrays have names of their own, add a builder to ``_builders.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from .._errors import CheckpointError
from ._arrays import StoredArray
from ._contents import Contents
from ._found import CONVERTED, DECODER, KINDS, Checkpoint
from ._pickle import Record
from ._stand_ins import TENSORFLOW_NETWORK
from ._trees import (
    Table,
    describe,
    gather,
    is_module,
    listed,
    module_table,
    plain,
    settings_of,
    submodule,
    table_of,
    under,
)
from .rosinality import lacks_noise

Form = Callable[[Contents, "str | None"], "Checkpoint | None"]

NO_MEAN = "The file has no mean latent."
FUSED = "The file does not say how features are doubled; it is taken to do as all published networks of its kind."
NO_NOISE = "The file has no constant noise; it is drawn from a seed."
_SIGNATURES = (
    ("stylegan2", "nvlabs", "synthesis.b4.const", "mapping.fc0.weight"),
    ("stylegan3", "nvlabs", "synthesis.input.freqs", "mapping.fc0.weight"),
    ("stylegan2", "rosinality", "conv1.conv.modulation.weight", "style.1.weight"),
    ("stylegan1", "rosinality", "generator.progression.0.conv1.input", "style.1.linear.weight_orig"),
    ("stylegan3", "genforce", "synthesis.early_layer.frequency", "mapping.dense0.weight"),
    ("stylegan2", "genforce", "synthesis.early_layer.const", "mapping.dense0.weight"),
    ("stylegan1", "genforce", "synthesis.layer0.const", "mapping.dense0.weight"),
    ("biggan_deep", "huggingface", "generator.gen_z.weight_orig", "embeddings.weight"),
)
_TENSORFLOW_SIGNATURES = (("stylegan2", "4x4/Conv/mod_weight"), ("stylegan1", "4x4/Const/StyleMod/weight"))


def recognise(table: Mapping[str, Any]) -> tuple[str, str] | None:
    """Family and names of a generator, by the names of its arrays."""
    for family, names, *needed in _SIGNATURES:
        if all(name in table for name in needed):
            return family, names
    return None


def pick(parts: Mapping[str, Any], wanted: str | None, preferred: tuple[str, ...]) -> str:
    """The network of a file that was asked for, or the best one.

    Raises:
        CheckpointError: If there is none of that name.
    """
    if wanted is not None and wanted not in parts:
        raise CheckpointError(f"it has no network {wanted!r}, but {listed(parts)}")
    return wanted or next((name for name in preferred if name in parts), next(iter(parts)))


def own_file(contents: Contents, part: str | None) -> Checkpoint | None:
    """Files that this library writes."""
    metadata = contents.metadata
    if metadata.get("format") == CONVERTED:
        return _converted(contents, part)
    kind = "generator" if "family" in metadata and "config" in metadata else None
    for known in ("solution", "invertibility", "encoder"):
        kind = known if known in metadata.get("format", "") else kind
    if contents.container != "safetensors" or kind is None:
        return None
    arrays = gather(contents.root, contents.budget)
    notes = _card_notes(metadata.get("card", ""))
    family = metadata.get("family", metadata.get("architecture", ""))
    return Checkpoint(kind, family, "saminv safetensors", "saminv", arrays, dict(metadata), notes=notes)


def _card_notes(card: str) -> tuple[str, ...]:
    """What a generator that was converted says about where it is from."""
    try:
        found = json.loads(card)
        return (f"Converted from {found['source']} ({found['form']}).", *map(str, found["notes"]))
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()


def _converted(contents: Contents, part: str | None) -> Checkpoint:
    """A foreign checkpoint that :func:`saminv.checkpoints.save_checkpoint` wrote."""
    try:
        described = json.loads(contents.metadata["checkpoint"])
        inner = described.pop("decoder")
        table = contents.root
        found = _restored(
            described, gather({k: v for k, v in table.items() if not k.startswith(DECODER)}, contents.budget)
        )
        if inner is not None:
            inner.pop("decoder")
            found = replace(found, decoder=_restored(inner, gather(under(table, DECODER), contents.budget)))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"its description is damaged ({type(error).__name__})") from error
    if found.kind not in KINDS:
        raise CheckpointError(f"it is of the unknown kind {found.kind!r}")
    if part is not None and found.decoder is not None and part == found.decoder.part:
        return found.decoder
    return found


def _restored(described: dict[str, Any], arrays: Mapping[str, Tensor]) -> Checkpoint:
    parts, notes = (tuple(map(str, described.pop(name))) for name in ("parts", "notes"))
    settings = dict(described.pop("settings"))
    if not all(isinstance(value, str) for value in described.values()):
        raise TypeError("no text")
    return Checkpoint(**described, parts=parts, notes=notes, settings=settings, arrays=arrays)


def nvidia_pytorch(contents: Contents, part: str | None) -> Checkpoint | None:
    """Modules that NVIDIA's PyTorch code or ``torch.save`` of such a module has written whole."""
    root = contents.root
    modules = {"": root} if is_module(root) else {}
    if isinstance(root, dict):
        modules = {str(name): value for name, value in root.items() if is_module(value)}
    if not modules:
        return None
    chosen = pick(modules, part, ("G_ema", "G", ""))
    module = modules[chosen]
    if module.kind.startswith("torch.nn.parallel."):
        module = submodule(module, "module") or module
    table = module_table(module, contents.budget)
    found = recognise(table)
    form = "NVIDIA PyTorch pickle" if "" not in modules else "PyTorch module saved whole"
    more: dict[str, Any] = {"part": chosen, "parts": tuple(name for name in modules if name)}
    if found is None:
        if "b4.out.weight" in table:
            arrays, settings = gather(table, contents.budget), _keywords(module) | _observed_critic(module)
            return Checkpoint("discriminator", "stylegan2", form, "nvlabs", arrays, settings, **more)
        raise CheckpointError(
            f"its {chosen or 'module'} is a {module.kind.rsplit('.', 1)[-1]} of an unknown kind with {listed(table)}"
        )
    settings = _keywords(module)
    if found == ("stylegan2", "nvlabs"):
        settings |= _observed(module)
    return Checkpoint("generator", *_spread(found, form), gather(table, contents.budget), settings, **more)


def _spread(found: tuple[str, str], form: str) -> tuple[str, str, str]:
    family, names = found
    return family, form, names


def _keywords(module: Record) -> dict[str, Any]:
    """The keywords of a constructor; those for the synthesis, which one code nests, beside the others."""
    found = settings_of(module.state.get("_init_kwargs"))
    nested = found.pop("synthesis_kwargs", {})
    return {**found, **(nested if isinstance(nested, dict) else {}), "synthesis_kwargs_nested": bool(nested)}


def _observed(module: Record) -> dict[str, Any]:
    """What the layers of a StyleGAN2 say about themselves, which holds whatever the constructor was called with."""
    synthesis, mapping = submodule(module, "synthesis"), submodule(module, "mapping")
    assert synthesis is not None and mapping is not None
    found = _observed_layers(synthesis, ("conv0", "conv1", "torgb"))
    first = submodule(mapping, "fc0")
    gain = None if first is None else first.state.get("bias_gain")
    if isinstance(gain, (int, float)):
        found["lr_multiplier"] = gain
    return found


def _observed_critic(module: Record) -> dict[str, Any]:
    """The same of a discriminator."""
    found = _observed_layers(module, ("conv0", "conv1", "conv", "fc"))
    last = submodule(module, "b4")
    variety = None if last is None else submodule(last, "mbstd")
    if variety is not None:
        for name in ("group_size", "num_channels"):
            if name in variety.state:
                found[f"mbstd_{name}"] = plain(variety.state[name])
    elif last is not None and "mbstd" in last.state:
        found["mbstd_num_channels"] = 0
    return found


def _observed_layers(network: Record, layers: tuple[str, ...]) -> dict[str, Any]:
    """Clamp and architecture, in which all layers of a network have to be alike."""
    found: dict[str, Any] = {}
    clamps, kinds, shapes = set(), set(), set()
    for name in network.state["_modules"]:
        block = submodule(network, name)
        if block is None or not re.fullmatch(r"b\d+", name):
            continue
        shapes |= {block.state["architecture"]} if isinstance(block.state.get("architecture"), str) else set()
        for layer in [submodule(block, inner) for inner in layers]:
            if layer is None:
                continue
            clamp = layer.state.get("conv_clamp", "absent")
            clamps |= {clamp} if isinstance(clamp, (int, float, type(None))) else set()
            kinds |= {layer.state["activation"]} if isinstance(layer.state.get("activation"), str) else set()
    if len(clamps) > 1 or len(shapes) > 1:
        raise CheckpointError("its layers differ in clamp or architecture, which is not supported")
    if clamps:
        found["conv_clamp"] = clamps.pop()
    if shapes:
        found["architecture"] = shapes.pop()
    if kinds - {"lrelu"}:
        raise CheckpointError(f"its layers have the activation {listed(sorted(kinds))}; supported is lrelu")
    return found


def nvidia_tensorflow(contents: Contents, part: str | None) -> Checkpoint | None:
    """Networks of NVIDIA's TensorFlow code."""
    root = contents.root if isinstance(contents.root, (tuple, list)) else (contents.root,)
    if not root or not all(isinstance(value, Record) and value.kind == TENSORFLOW_NETWORK for value in root):
        return None
    names = ("G", "D", "Gs") if len(root) == 3 else tuple(str(k) for k in range(len(root))) if len(root) > 1 else ("",)
    networks = dict(zip(names, root))
    chosen = pick(networks, part, ("Gs", "G", ""))
    network = networks[chosen]
    table = _variables(network)
    settings = settings_of(network.state.get("static_kwargs"))
    settings["build_func_name"] = str(network.state.get("build_func_name"))[:80]
    components = network.state.get("components")
    for component in components.values() if isinstance(components, dict) else ():
        if isinstance(component, Record) and component.kind == TENSORFLOW_NETWORK:
            table = {**_variables(component), **table}
            settings = {**settings_of(component.state.get("static_kwargs")), **settings}
    more: dict[str, Any] = {"part": chosen, "parts": tuple(name for name in names if name)}
    for family, needed in _TENSORFLOW_SIGNATURES:
        if needed in table:
            arrays = gather(table, contents.budget)
            return Checkpoint("generator", family, "NVIDIA TensorFlow pickle", "tensorflow", arrays, settings, **more)
    if any("FromRGB" in name for name in table):
        arrays = gather(table, contents.budget)
        return Checkpoint("discriminator", "", "NVIDIA TensorFlow pickle", "tensorflow", arrays, settings, **more)
    raise CheckpointError(f"its network {settings['build_func_name']} is neither a StyleGAN1 nor a StyleGAN2")


def _variables(network: Record) -> dict[str, StoredArray | float | int]:
    """The variables of one network without those of its components."""
    pairs = network.state.get("variables")
    found: dict[str, StoredArray | float | int] = {}
    for pair in pairs if isinstance(pairs, (list, tuple)) else ():
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not isinstance(pair[0], str):
            raise CheckpointError("its list of variables is damaged")
        name, value = pair
        if not isinstance(value, (StoredArray, float, int)):
            raise CheckpointError(f"its variable {name[:80]} is a {type(value).__name__}")
        found[name] = value
    return found


def rosinality(contents: Contents, part: str | None) -> Checkpoint | None:
    """Files of rosinality's StyleGAN2 and StyleGAN1: converted ones, and those of the trainers."""
    root = contents.root
    if not isinstance(root, dict):
        return None
    tables = {name: table for name in ("g_ema", "g_running", "g", "generator") if (table := table_of(root.get(name)))}
    tables = {name: table for name, table in tables.items() if (recognise(table) or ("", ""))[1] == "rosinality"}
    if not tables:
        return None
    chosen = pick(tables, part, ("g_ema", "g_running", "g", "generator"))
    return _state(contents, tables[chosen], root, part=chosen, parts=tuple(tables))


def genforce(contents: Contents, part: str | None) -> Checkpoint | None:
    """Files of GenForce and Hammer that have a generator and no encoder."""
    root = contents.root
    models = root.get("models", root) if isinstance(root, dict) else None
    if not isinstance(models, dict) or "encoder" in models:
        return None
    tables = {name: table for name in ("generator_smooth", "generator") if (table := table_of(models.get(name)))}
    tables = {name: table for name, table in tables.items() if (recognise(table) or ("", ""))[1] == "genforce"}
    if not tables:
        return None
    chosen = pick(tables, part, ("generator_smooth", "generator"))
    return _state(contents, tables[chosen], root, part=chosen, parts=tuple(tables))


def bare_state(contents: Contents, part: str | None) -> Checkpoint | None:
    """The state dictionary of a generator, alone or under one of the usual names."""
    root = contents.root
    tables = {"": table_of(root)}
    for name in ("state_dict", "model_state_dict", "model", "params_ema", "params", "netG", "G_ema", "G", "generator"):
        tables[name] = table_of(root.get(name)) if isinstance(root, dict) else None
    known = {name: table for name, table in tables.items() if table and recognise(table)}
    if not known:
        return None
    chosen = pick(known, part, tuple(tables))
    return _state(contents, known[chosen] or {}, root, part=chosen)


_FORM_NAMES = {
    "nvlabs": "state dictionary of NVIDIA's PyTorch code",
    "rosinality": "rosinality checkpoint",
    "genforce": "GenForce or Hammer checkpoint",
    "huggingface": "BigGAN state dictionary",
}


def _state(contents: Contents, table: Table, root: Any, *, part: str = "", parts: tuple[str, ...] = ()) -> Checkpoint:
    """A generator whose arrays have known names, with what lies beside its state dictionary."""
    found = recognise(table)
    if found is None:
        raise CheckpointError(f"it holds {describe(table)}")
    family, names = found
    settings = stated_settings(root)
    arrays = gather(table, contents.budget)
    notes: tuple[str, ...] = ()
    if (family, names) == ("stylegan1", "rosinality"):
        settings["step"], last = _trained_step(arrays)
        if settings["step"] < last:
            side = 4 << settings["step"]
            notes = (f"Its blocks above {side} pixels have no noise, as before any training, and are left out.",)
    elif (family, names) == ("stylegan1", "genforce") and not settings:
        notes = (FUSED,)
    elif names == "rosinality":
        average = root.get("latent_avg") if isinstance(root, dict) else None
        if isinstance(average, StoredArray):
            arrays |= gather({"latent_avg": average}, contents.budget)
        else:
            notes = (NO_MEAN,)
        notes += (NO_NOISE,) if lacks_noise(arrays) else ()
    return Checkpoint("generator", family, _FORM_NAMES[names], names, arrays, settings, part, parts, notes)


def _trained_step(arrays: Mapping[str, Tensor]) -> tuple[int, int]:
    """The last block that was trained, and the last one: these files have blocks up to 1024 pixels in any case.

    The strengths of noise are zero until a block is trained.
    """
    pattern = re.compile(r"generator\.progression\.(\d{1,2})\.noise1\.weight_orig")
    found = {int(match[1]): bool(x.any()) for name, x in arrays.items() if (match := pattern.fullmatch(name))}
    last = max(found, default=1)
    return max((step for step, trained in found.items() if trained and step > 0), default=last), last


def stated_settings(root: Any) -> dict[str, Any]:
    """Settings that files keep beside their networks: ``args``, ``opts``, or keywords of the generator."""
    if not isinstance(root, dict):
        return {}
    for name in ("args", "opts"):
        if name in root:
            return settings_of(root[name])
    keywords = settings_of(root.get("model_kwargs_init"))
    for name in ("generator_smooth", "generator"):
        if isinstance(keywords.get(name), dict):
            return keywords[name]
    return {}


__all__ = [
    "NO_MEAN",
    "Form",
    "bare_state",
    "genforce",
    "nvidia_pytorch",
    "nvidia_tensorflow",
    "own_file",
    "pick",
    "recognise",
    "rosinality",
    "stated_settings",
    "under",
]

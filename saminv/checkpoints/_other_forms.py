"""Encoders, invertibility networks and directions: as in ``_forms.py``, a function for each form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .._errors import CheckpointError
from ._arrays import StoredArray
from ._contents import Contents
from ._forms import NO_MEAN, NO_NOISE, pick, recognise, stated_settings
from ._found import Checkpoint
from ._trees import Table, gather, settings_of, table_of, under
from .rosinality import lacks_noise

METHODS = {
    "Encoder4Editing": "e4e",
    "SingleStyleCodeEncoder": "e4e",
    "GradualStyleEncoder": "psp",
    "BackboneEncoderUsingLastLayerIntoW": "psp",
    "BackboneEncoderUsingLastLayerIntoWPlus": "psp",
    "BackboneEncoder": "restyle",
    "ResNetBackboneEncoder": "restyle",
    "ResNetGradualStyleEncoder": "restyle",
    "ProgressiveBackboneEncoder": "restyle",
    "ResNetProgressiveBackboneEncoder": "restyle",
}
"""Methods by what their files call ``encoder_type``; the key sets of e4e and pSp are the same."""
_STEMS = {"input_layer.0.weight": "body.0.res_layer.0.weight", "conv1.weight": "body.0.conv1.weight"}
"""The first convolution of an encoder, and one of its first block: IR-SE-50 and, of ReStyle, ResNet-34."""
RGB = 3
W_DIM = 512
MOST_ROWS = 64
_GANSPACE = (
    {"mean": "mean", "comp": "comp", "std": "std"},
    # Of features, too, it keeps what they are in the latent space, where edits are made.
    {"mean": "lat_mean", "comp": "lat_comp", "std": "lat_stdev"},
    {"mean": "act_mean", "comp": "act_comp", "std": "act_stdev"},
)
_EDIT = {"lat_comp", "sigma_range", "edit_start", "edit_end"}
"""Among the entries of an edit that GANSpace's viewer exports."""


def psp_family(contents: Contents, part: str | None) -> Checkpoint | None:
    """pSp, e4e and ReStyle: an encoder, mostly with its generator and the mean latent."""
    root = contents.root
    table = table_of(root.get("state_dict")) if isinstance(root, dict) else None
    encoder, decoder = (under(table or {}, f"{name}.") for name in ("encoder", "decoder"))
    first = next((encoder[stem] for stem, block in _STEMS.items() if stem in encoder and block in encoder), None)
    if first is None:
        return None
    settings = stated_settings(root)
    kind = str(settings.get("encoder_type", ""))
    notes: tuple[str, ...] = ()
    if kind not in METHODS:
        notes = (f"The file does not say which method it is of (encoder_type is {kind[:60]!r}); pSp is assumed.",)
    # ReStyle looks at what it has made beside the picture. It has encoders of pSp, too.
    refines = len(first.shape) == 4 and first.shape[1] == 2 * RGB
    method = "restyle" if refines else METHODS.get(kind, "psp")
    arrays = gather(encoder, contents.budget)
    average, remark = _average(root.get("latent_avg"), contents)
    if average is not None:
        arrays["latent_avg"] = average
    generator = _decoder(decoder, average, remark, contents) if decoder else None
    parts = ("encoder", "decoder") if generator is not None else ("encoder",)
    if pick(dict.fromkeys(parts), part, ("encoder",)) == "decoder":
        return generator
    return Checkpoint(
        "encoder", method, "pSp, e4e or ReStyle checkpoint", "psp", arrays, settings, "encoder", parts, notes, generator
    )


def _average(value: Any, contents: Contents) -> tuple[Tensor | None, str]:
    """The mean latent as it is stored, a row for each style or one for all, and a remark on it."""
    if not isinstance(value, StoredArray):
        return None, NO_MEAN
    average = gather({"latent_avg": value}, contents.budget)["latent_avg"]
    rows = average.reshape(-1, average.shape[-1]) if average.dim() else average
    uneven = rows.dim() == 2 and bool((rows - rows[:1]).abs().max() > 1e-5)
    return average, "The rows of the mean latent differ; the generator has the first one." if uneven else ""


def _decoder(table: Table, average: Tensor | None, remark: str, contents: Contents) -> Checkpoint:
    if recognise(table) != ("stylegan2", "rosinality"):
        raise CheckpointError("its decoder is no StyleGAN2 generator of the form of rosinality")
    arrays = gather(table, contents.budget)
    if average is not None:
        arrays["latent_avg"] = average.reshape(-1, average.shape[-1])[0]
    notes = ((remark,) if remark else ()) + ((NO_NOISE,) if lacks_noise(arrays) else ())
    form = "decoder of a pSp, e4e or ReStyle checkpoint"
    return Checkpoint(
        "generator", "stylegan2", form, "rosinality", arrays, {}, "decoder", ("encoder", "decoder"), notes
    )


def padinv(contents: Contents, part: str | None) -> Checkpoint | None:
    """Files of the PadInv trainer: an encoder with its generator, whose mean latent is the encoder's too."""
    root = contents.root
    models = root.get("models") if isinstance(root, dict) else None
    if not isinstance(models, dict):
        return None
    encoder = table_of(models.get("encoder"))
    if encoder is None or not any(name.startswith("backbone_stages.") for name in encoder):
        return None
    networks = {name: table for name in ("generator_smooth", "generator") if (table := table_of(models.get(name)))}
    parts = ("encoder", *networks)
    wanted = pick(dict.fromkeys(parts), part, ("encoder",))
    keywords = root.get("model_kwargs_init")
    chosen = wanted if wanted in networks else next(iter(networks), "")
    form = "PadInv or Hammer checkpoint"
    generator = None
    if chosen:
        found = recognise(networks[chosen])
        if found is None or found[1] != "genforce":
            raise CheckpointError(f"its {chosen} is no generator of the form of Hammer")
        settings = stated_settings({"model_kwargs_init": keywords})
        arrays = gather(networks[chosen], contents.budget)
        generator = Checkpoint("generator", found[0], form, "genforce", arrays, settings, chosen, parts)
    if wanted != "encoder":
        return generator
    arrays = gather(encoder, contents.budget)
    settings = {}
    if isinstance(keywords, dict):
        settings = stated_settings({"opts": keywords.get("encoder", {})})
    return Checkpoint("encoder", "padinv", form, "padinv", arrays, settings, "encoder", parts, (), generator)


def feature_style(contents: Contents, part: str | None) -> Checkpoint | None:
    """The encoder of FeatureStyleEncoder, alone or as its trainer keeps it."""
    root = contents.root
    inner = root.get("enc_state_dict", root) if isinstance(root, dict) else None
    table = table_of(inner)
    if table is None or not {"conv.0.weight", "content_layer.0.weight", "styles.0.weight"} <= set(table):
        return None
    arrays = gather(table, contents.budget)
    return Checkpoint("encoder", "feature-style", "FeatureStyleEncoder checkpoint", "feature-style", arrays)


def sam_invertibility(contents: Contents, part: str | None) -> Checkpoint | None:
    """The published invertibility networks of SAM: a shared part and a head for each space."""
    root = contents.root
    if not isinstance(root, Mapping) or table_of(root.get("sd_base")) is None:
        return None
    arrays: dict[str, Tensor] = {}
    spaces: list[str] = []
    for name, value in root.items():
        table = table_of(value)
        if table is None or not isinstance(name, str):
            raise CheckpointError(f"its {str(name)[:40]} is no table of arrays")
        arrays |= gather({f"{name}.{inner}": array for inner, array in table.items()}, contents.budget)
        spaces += [name] if name != "sd_base" else []
    if not spaces:
        raise CheckpointError("it holds the shared part of an invertibility network, but no head of a space")
    return Checkpoint("invertibility", "sam", "SAM invertibility network", "sam", arrays, {"spaces": spaces})


def sam_pieces(contents: Contents, part: str | None) -> Checkpoint | None:
    """What the training of a SAM invertibility network leaves, a shared part or a head; it takes both."""
    table = table_of(contents.root) or {}
    is_base = {"backbone.conv1.weight", "aspp.conv1.weight", "decoder.last_conv.8.weight"} <= set(table)
    if not is_base and not {"m.0.weight", "m.1.running_var", "m.3.weight"} <= set(table):
        return None
    arrays = gather(table, contents.budget)
    what = "shared part" if is_base else "head"
    notes = ("A piece of a network; name its folder to read all of them.",)
    return Checkpoint("invertibility", "sam", f"{what} of a SAM invertibility network", "sam", arrays, notes=notes)


def directions(contents: Contents, part: str | None) -> Checkpoint | None:
    """Directions in W or W+: one array, several by name, or the principal components of GANSpace."""
    root = contents.root
    if isinstance(root, StoredArray):
        return _directions({"direction": root}, contents, f"direction ({contents.container})")
    if not isinstance(root, dict):
        return None
    for keys in _GANSPACE:
        if all(isinstance(root.get(name), StoredArray) for name in keys.values()):
            return _ganspace({ours: root[theirs] for ours, theirs in keys.items()}, contents)
    factors = root.get("eigvec")
    if isinstance(factors, StoredArray) and len(factors.shape) == 2 and "ckpt" in root:
        columns = gather({"eigvec": factors}, contents.budget)
        layout = {**settings_of(root), "layout": f"W, {factors.shape[0]}, in columns"}
        return Checkpoint("directions", "sefa", "factors of rosinality's closed form", "directions", columns, layout)
    if set(root) >= _EDIT and isinstance(root["lat_comp"], StoredArray):
        found = _directions({"direction": root["lat_comp"]}, contents, "edit of GANSpace")
        return found and replace(found, settings={**settings_of(root), **found.settings})
    table = table_of(root)
    if table is None or contents.container not in ("npz", "safetensors"):
        return None
    return _directions(table, contents, f"directions ({contents.container})")


def _directions(table: Table, contents: Contents, form: str) -> Checkpoint | None:
    if not all(_is_direction(array) for array in table.values()):
        return None
    arrays = gather(table, contents.budget)
    layouts = sorted({_layout(tensor.shape) for tensor in arrays.values()})
    return Checkpoint("directions", "", form, "directions", arrays, {"layout": ", ".join(layouts)})


def _is_direction(array: StoredArray) -> bool:
    shape, dtype = array.shape, array.dtype
    if dtype is None or not dtype.is_floating_point or not 1 <= len(shape) <= 3 or 0 in shape:
        return False
    rows = shape[:-1]
    return all(side == 1 for side in rows[:-1]) and all(side <= MOST_ROWS for side in rows) and shape[-1] <= 1 << 16


def _layout(shape: torch.Size) -> str:
    """One row for all layers, one for each, or all of them in one."""
    rows = shape[-2] if len(shape) > 1 else 1
    if rows == 1 and shape[-1] > W_DIM and shape[-1] % W_DIM == 0:
        return f"W+, flattened, {shape[-1] // W_DIM} x {W_DIM}"
    return f"W, {shape[-1]}" if rows == 1 else f"W+, {rows} x {shape[-1]}"


def _ganspace(table: Table, contents: Contents) -> Checkpoint:
    arrays = gather(table, contents.budget)
    try:
        count = arrays["std"].numel()
        shaped = {"components": arrays["comp"].reshape(count, -1), "mean": arrays["mean"].flatten()}
        shaped["deviations"] = arrays["std"].flatten()
        if shaped["components"].shape[1] != shaped["mean"].shape[0]:
            raise RuntimeError("mean and components differ in length")
    except RuntimeError as error:
        raise CheckpointError(f"its principal components do not fit each other ({error})") from error
    settings = {"components": count, "layout": f"W, {shaped['mean'].shape[0]}"}
    return Checkpoint("directions", "ganspace", "GANSpace principal components", "ganspace", shaped, settings)

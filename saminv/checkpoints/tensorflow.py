"""Variable names of StyleGAN2 in NVIDIA's TensorFlow code, and their counterparts in its PyTorch code.

Reference:
    Karras et al., 2020, arXiv 1912.04958 (configurations A to F, Table 1), arXiv 2006.06676 (labels, clamp).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .._errors import CheckpointError
from ..generators.stylegan2 import StyleGAN2
from .nvlabs import nvlabs_config, stylegan2_from_nvlabs

_SUPPORTED = {
    "nonlinearity": "lrelu",
    "mapping_nonlinearity": "lrelu",
    "normalize_latents": True,
    "resample_kernel": [1, 3, 3, 1],
}
"""Keywords of the build functions under which a network is another one, with the value that is supported."""
_STATED = {
    "resolution": "img_resolution",
    "latent_size": "z_dim",
    "dlatent_size": "w_dim",
    "label_size": "c_dim",
    "num_channels": "img_channels",
    "conv_clamp": "conv_clamp",
    "mapping_lrmul": "lr_multiplier",
}
_LAYER = re.compile(r"(?:.*/)?(\d+)x\1/(Conv|Conv0_up|Conv1|ToRGB|Skip)/(\w+)")
_LAYERS = {"Conv": "conv1", "Conv0_up": "conv0", "Conv1": "conv1", "ToRGB": "torgb", "Skip": "skip"}
_PARTS = {
    "weight": "weight",
    "bias": "bias",
    "noise_strength": "noise_strength",
    "mod_weight": "affine.weight",
    "mod_bias": "affine.bias",
}


def stylegan2_from_tensorflow(arrays: Mapping[str, Tensor], settings: Mapping[str, Any] | None = None) -> StyleGAN2:
    """Build a StyleGAN2 from the variables of NVIDIA's TensorFlow code: configurations B to F, and ADA.

    Configurations B to D grew in training; of their outputs only that of the last resolution is used once they have
    grown up. Configuration A is a StyleGAN1.

    Args:
        arrays: Variables of the generator, its mapping and its synthesis together, under names such as "dlatent_avg" or
            "4x4/Const/const" with any path before.
        settings: Keywords of the build functions, which the file carries; absent ones have the value that the code
            gives them.

    Raises:
        CheckpointError: If a variable is missing, unknown or of an impossible shape, or the network cannot be
            represented; says why.
    """
    settings = settings or {}
    for name, supported in _SUPPORTED.items():
        stated = settings.get(name, supported)
        if (list(stated) if isinstance(stated, tuple) else stated) != supported:
            raise CheckpointError(f"it is a StyleGAN2 with {name} {stated!r}; only {supported!r} is supported")
    last = max((int(match[1]) for name in arrays if (match := _LAYER.fullmatch(name))), default=0)
    renamed: dict[str, Tensor] = {}
    for name, tensor in arrays.items():
        try:
            pair = _renamed(name, tensor, last)
        except (IndexError, RuntimeError) as error:
            raise CheckpointError(f"its variable {name!r} has the impossible shape {list(tensor.shape)}") from error
        if pair is not None:
            renamed[pair[0]] = pair[1]
    stated = {theirs: settings[ours] for ours, theirs in _STATED.items() if settings.get(ours) is not None}
    # The original code has a bare matrix of labels, ADA a layer with a bias.
    stated["label_with_noise"] = any(name.rpartition("/")[0].endswith("LabelConcat") for name in arrays)
    return stylegan2_from_nvlabs(renamed, nvlabs_config(renamed, stated))


def _renamed(name: str, tensor: Tensor, last: int) -> tuple[str, Tensor] | None:
    """Name and array as in the PyTorch code; None for what is not used."""
    short = name.rpartition("/")[2]
    if short == "dlatent_avg":
        return "mapping.w_avg", tensor
    if short == "lod":
        if float(tensor) != 0:
            raise CheckpointError(
                f"it was saved while it grew (lod {float(tensor):g}); only finished ones are supported"
            )
        return None
    if match := re.fullmatch(r"(?:.*/)?(?:Dense(\d+)|LabelEmbed|LabelConcat)/(weight|bias)", name):
        return f"mapping.{'embed' if match[1] is None else f'fc{match[1]}'}.{match[2]}", tensor.t()
    if re.fullmatch(r"(?:.*/)?4x4/Const/const", name):
        return "synthesis.b4.const", tensor[0]
    if match := re.fullmatch(r"noise(\d{1,3})", short):
        layer = int(match[1])
        return f"synthesis.b{4 << (layer + 1) // 2}.conv{1 - layer % 2}.noise_const", tensor[0, 0]
    if match := re.fullmatch(r"(?:.*/)?ToRGB_lod(\d+)/(\w+)", name):
        if int(match[1]) > 0:
            return None
        name = f"{last}x{last}/ToRGB/{match[2]}"
    match = _LAYER.fullmatch(name)
    if match is None or match[3] not in _PARTS:
        raise CheckpointError(f"its variable {name!r} is none of a StyleGAN2 generator")
    ours = f"synthesis.b{match[1]}.{_LAYERS[match[2]]}.{_PARTS[match[3]]}"
    if match[3] == "weight":
        kernel = tensor.permute(3, 2, 0, 1)
        # Up-sampling convolves with the kernel as it stands there, with the flipped one here.
        return ours, kernel.flip(2, 3) if match[2] in ("Conv0_up", "Skip") else kernel
    if match[3] == "mod_weight":
        return ours, tensor.t()
    return ours, tensor + 1 if match[3] == "mod_bias" else torch.atleast_1d(tensor) if match[3] == "bias" else tensor

"""Array names of rosinality's stylegan2-pytorch (and of encoders built on it), and their counterparts here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .._errors import CheckpointError
from ..generators.stylegan2 import StyleGAN2, StyleGAN2Config
from ._state import build_stylegan2, noise_places

_LAYER = re.compile(r"(conv1|convs\.(\d+))\.(.+)")
_RGB = re.compile(r"(to_rgb1|to_rgbs\.(\d+))\.(.+)")
_PARTS = {
    "conv.weight": "weight",
    "conv.modulation.weight": "affine.weight",
    "conv.modulation.bias": "affine.bias",
    "noise.weight": "noise_strength",
    "activate.bias": "bias",
    "bias": "bias",
}
NOISE_SEED = 0
"""Of the constant noise of files that hold none."""
_AXES = {"const": 3, "noise_const": 2, "noise_strength": 0, "bias": 1}
"""Of our arrays by the last part of their name; kernels have four."""


def _our_name(name: str) -> str | None:
    """Our state-dict name; None for arrays that follow from the configuration."""
    if name.endswith("kernel"):
        return None
    if name == "input.input":
        return "const"
    if match := re.fullmatch(r"style\.(\d+)\.(weight|bias)", name):
        return f"mapping_network.layers.{int(match[1]) - 1}.{match[2]}"
    if match := re.fullmatch(r"noises\.noise_(\d+)", name):
        return f"layers.{match[1]}.noise_const"
    if (match := _LAYER.fullmatch(name)) and match[3] in _PARTS:
        return f"layers.{int(match[2]) + 1 if match[2] else 0}.{_PARTS[match[3]]}"
    if (match := _RGB.fullmatch(name)) and match[3] in _PARTS:
        return f"torgb.{2 * int(match[2]) + 2 if match[2] else 0}.{_PARTS[match[3]]}"
    raise CheckpointError(f"{name!r} is no array of a rosinality StyleGAN2 generator.")


def stylegan2_from_rosinality(
    arrays: Mapping[str, Tensor], latent_avg: Tensor | None = None, *, learning_rate_multiplier: float = 0.01
) -> StyleGAN2:
    """Build a StyleGAN2 from the state dictionary of rosinality's generator; its shapes say the configuration.

    Args:
        arrays: By the names of the file.
        latent_avg: Mean w `[D]`, which the file keeps apart; zero if None.
        learning_rate_multiplier: Of the mapping, which the file does not say.

    Raises:
        CheckpointError: If an array is missing, unknown or of an impossible shape.
    """
    try:
        config = _config(arrays, learning_rate_multiplier)
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"This is no rosinality StyleGAN2 generator: {error} is missing or has no sense."
        ) from error
    _check_kernels(arrays)
    renamed = {ours: _squeezed(ours, x) for name, x in arrays.items() if (ours := _our_name(name)) is not None}
    if lacks_noise(arrays):
        source = torch.Generator().manual_seed(NOISE_SEED)
        for layer, side in noise_places(config):
            renamed[f"{layer}.noise_const"] = torch.randn(side, side, generator=source)
    if latent_avg is not None and latent_avg.numel() != config.w_dim:
        raise CheckpointError(f"its mean latent has the shape {list(latent_avg.shape)} instead of [{config.w_dim}]")
    renamed["w_avg"] = torch.zeros(config.w_dim) if latent_avg is None else latent_avg.reshape(config.w_dim)
    return build_stylegan2(renamed, config)


def lacks_noise(arrays: Iterable[str]) -> bool:
    """Whether a file is of the time before this code kept constant noise."""
    return not any(name.startswith("noises.") for name in arrays)


def _squeezed(name: str, tensor: Tensor) -> Tensor:
    """An array without the axes of 1 that these files have before and after what is ours."""
    axes = _AXES.get(name.rpartition(".")[2], min(tensor.dim(), 4))
    while tensor.dim() > axes and tensor.shape[0] == 1:
        tensor = tensor[0]
    while tensor.dim() > axes and tensor.shape[-1] == 1:
        tensor = tensor[..., 0]
    return tensor


def _check_kernels(arrays: Mapping[str, Tensor]) -> None:
    """Make sure that the filters are those of all published networks, since they are not kept."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    for name, tensor in arrays.items():
        if name.endswith("kernel") and (
            tensor.shape != (4, 4) or not torch.allclose(tensor.float(), torch.outer(taps, taps), atol=1e-3)
        ):
            raise CheckpointError(f"its {name} is not the filter 1, 3, 3, 1, which is the only supported one")


def _config(arrays: Mapping[str, Tensor], multiplier: float) -> StyleGAN2Config:
    blocks = 1 + max((int(m[1]) for name in arrays if (m := re.match(r"to_rgbs\.(\d+)\.", name))), default=-1)
    mapping = [name for name in arrays if re.fullmatch(r"style\.\d+\.weight", name)]
    table = [arrays["conv1.conv.weight"].shape[1]]
    table += [arrays[f"convs.{2 * block}.conv.weight"].shape[1] for block in range(blocks)]
    first = arrays["style.1.weight"]
    settings: dict[str, Any] = {"channel_table": tuple(table), "learning_rate_multiplier": multiplier}
    return StyleGAN2Config(4 << blocks, first.shape[1], first.shape[0], mapping_layers=len(mapping), **settings)

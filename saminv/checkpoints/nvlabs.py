"""Array names of the NVIDIA PyTorch StyleGAN2, and their counterparts here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .._errors import CheckpointError
from ..generators.stylegan2 import StyleGAN2, StyleGAN2Config
from ._state import build_stylegan2, noise_places

_ANY_BLOCK = re.compile(r"synthesis\.b(\d{1,6})\..+")
_BLOCK = re.compile(r"synthesis\.b(\d+)\.(conv0|conv1|torgb|skip)\.(.+)")


def _our_name(name: str) -> str | None:
    """Our state-dict name of an NVIDIA name; None for arrays that follow from the configuration."""
    if name.endswith("resample_filter"):
        return None
    if name == "synthesis.b4.const":
        return "const"
    if name == "mapping.w_avg":
        return "w_avg"
    if name.startswith("mapping.embed."):
        return name.replace("mapping.embed", "mapping_network.embed")
    if name.startswith("mapping.fc"):
        return re.sub(r"mapping\.fc(\d+)", r"mapping_network.layers.\1", name)
    match = _BLOCK.fullmatch(name)
    if match is None:
        raise CheckpointError(f"{name!r} is no array of an NVIDIA StyleGAN2 generator.")
    last = 2 * (int(match[1]).bit_length() - 3)
    part = {"conv0": f"layers.{last - 1}", "conv1": f"layers.{last}", "torgb": f"torgb.{last}", "skip": f"skips.{last}"}
    return f"{part[match[2]]}.{match[3]}"


def stylegan2_from_nvlabs(arrays: Mapping[str, Tensor], config: StyleGAN2Config) -> StyleGAN2:
    """Build a StyleGAN2 from arrays under NVIDIA's names (stylegan2-ada-pytorch and its stylegan3 copy).

    Raises:
        CheckpointError: If an array is missing, unknown or of another shape than the configuration says.
    """
    renamed = {ours: tensor for name, tensor in arrays.items() if (ours := _our_name(name)) is not None}
    if not any(name.endswith(("noise_strength", "noise_const")) for name in renamed):
        # With use_noise=False there is none, which is noise of no strength.
        for layer, side in noise_places(config):
            renamed |= {f"{layer}.noise_strength": torch.zeros(()), f"{layer}.noise_const": torch.zeros(side, side)}
    return build_stylegan2(renamed, config)


def nvlabs_config(arrays: Mapping[str, Tensor], settings: Mapping[str, Any] | None = None) -> StyleGAN2Config:
    """Configuration of a StyleGAN2 under NVIDIA's names: what shapes show is taken from them, the rest from settings.

    Args:
        arrays: By the names of the file.
        settings: Keywords of the constructor, those of its synthesis beside the others, and what its layers say of
            themselves: "conv_clamp", "architecture", "lr_multiplier". And "label_with_noise", as of the configuration.
            All may be absent.

    Raises:
        CheckpointError: If an array that shows a size is missing, settings and shapes contradict each other, or the
            network is one that StyleGAN2 here is not.
    """
    settings = settings or {}
    mapping = settings.get("mapping_kwargs")
    mapping = mapping if isinstance(mapping, Mapping) else {}
    blocks = sorted({int(match[1]) for name in arrays if (match := _ANY_BLOCK.fullmatch(name))})
    if len(blocks) < 2 or blocks != [4 << k for k in range(len(blocks))]:
        raise CheckpointError(f"its blocks have the resolutions {blocks}; needed are 4, 8 and so on")
    try:
        shape = {name: tuple(tensor.shape) for name, tensor in arrays.items()}
        depth = sum(re.fullmatch(r"mapping\.fc\d+\.weight", name) is not None for name in shape)
        embed_dim, label_dim = shape.get("mapping.embed.weight", (0, 0))
        first, last = shape["mapping.fc0.weight"], shape[f"mapping.fc{depth - 1}.weight"]
        sizes = {
            "img_resolution": blocks[-1],
            "z_dim": first[1] - embed_dim,
            "c_dim": label_dim,
            "w_dim": last[0],
            "img_channels": shape[f"synthesis.b{blocks[-1]}.torgb.weight"][0],
        }
        kernels = {name: shape[name] for name in (f"synthesis.b{block}.conv1.weight" for block in blocks)}
        table = tuple(kernel[0] for kernel in kernels.values())
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"it is no whole StyleGAN2: {error} is missing or has no sense") from error
    for name, kernel in kernels.items():
        if len(kernel) != 4:
            raise CheckpointError(f"its {name} is {list(kernel)}, which is no kernel")
    for name, found in (*sizes.items(), ("num_layers", depth)):
        stated = (mapping if name == "num_layers" else settings).get(name, found)
        if stated != found:
            raise CheckpointError(f"its settings say {name} {stated!r}, but its arrays {found}")
    architecture = _architecture(arrays, blocks)
    if settings.get("architecture", architecture) != architecture:
        raise CheckpointError(f"its settings say {settings['architecture']!r}, but its arrays are {architecture}")
    _check_filters(arrays)
    clamp, multiplier = settings.get("conv_clamp"), settings.get("lr_multiplier", mapping.get("lr_multiplier", 0.01))
    if not isinstance(clamp, (int, float, type(None))) or not isinstance(multiplier, (int, float)):
        raise CheckpointError("its settings conv_clamp and lr_multiplier must be numbers")
    return StyleGAN2Config(
        resolution=sizes["img_resolution"],
        z_dim=sizes["z_dim"],
        w_dim=sizes["w_dim"],
        label_dim=sizes["c_dim"],
        channel_table=table,
        mapping_layers=depth,
        mapping_width=first[0],
        learning_rate_multiplier=float(multiplier),
        embed_dim=embed_dim or None,
        label_with_noise=settings.get("label_with_noise") is True,
        architecture=architecture,
        clamp=None if clamp is None else float(clamp),
        image_channels=sizes["img_channels"],
    )


def _architecture(arrays: Mapping[str, Tensor], blocks: list[int]) -> str:
    if "synthesis.b4.torgb.weight" in arrays:
        return "skip"
    return "resnet" if f"synthesis.b{blocks[-1]}.skip.weight" in arrays else "orig"


def _check_filters(arrays: Mapping[str, Tensor]) -> None:
    """Make sure that the filters are those of all published networks, since they are not kept."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    for name, tensor in arrays.items():
        if name.endswith("resample_filter"):
            found = tensor.float()
            found = torch.outer(found, found) if found.dim() == 1 else found
            if found.shape != (4, 4) or not torch.allclose(found, torch.outer(taps, taps), atol=1e-4):
                raise CheckpointError(f"its {name} is not the filter 1, 3, 3, 1, which is the only supported one")

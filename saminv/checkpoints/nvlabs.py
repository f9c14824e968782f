"""Array names of the NVIDIA PyTorch StyleGAN2, and their counterparts here."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .._errors import CheckpointError
from ..generators.stylegan2 import StyleGAN2, StyleGAN2Config
from ._state import build_stylegan2

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
    return build_stylegan2(renamed, config)

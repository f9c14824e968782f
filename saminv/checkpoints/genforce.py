"""Array names of GenForce and Hammer (which PadInv is built on) for StyleGAN2, and their counterparts here."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .._errors import CheckpointError
from ..generators.stylegan2 import StyleGAN2, StyleGAN2Config
from ._state import build_stylegan2

_PATTERNS = (
    (re.compile(r"mapping\.dense(\d+)\.(weight|bias)"), r"mapping_network.layers.\1.\2"),
    (re.compile(r"synthesis\.layer(\d+)\.style\.(weight|bias)"), r"layers.\1.affine.\2"),
    (re.compile(r"synthesis\.layer(\d+)\.noise"), r"layers.\1.noise_const"),
    (re.compile(r"synthesis\.layer(\d+)\.(weight|bias|noise_strength)"), r"layers.\1.\2"),
)
_OUTPUT = re.compile(r"synthesis\.output(\d+)\.(style\.)?(weight|bias)")


def _our_name(name: str) -> str | None:
    """Our state-dict name; None for arrays that follow from the configuration."""
    if name == "w_avg" or name.endswith("filter"):
        return name if name == "w_avg" else None
    if name == "synthesis.early_layer.const":
        return "const"
    for pattern, ours in _PATTERNS:
        if pattern.fullmatch(name):
            return pattern.sub(ours, name)
    match = _OUTPUT.fullmatch(name)
    if match is None:
        raise CheckpointError(f"{name!r} is no array of a GenForce StyleGAN2 generator.")
    return f"torgb.{2 * int(match[1])}.{'affine.' if match[2] else ''}{match[3]}"


def stylegan2_from_genforce(arrays: Mapping[str, Tensor], config: StyleGAN2Config) -> StyleGAN2:
    """Build a StyleGAN2 with skips from arrays under the names of GenForce, Hammer and PadInv.

    Raises:
        CheckpointError: If an array is missing, unknown or of another shape than the configuration says.
    """
    renamed = {ours: tensor for name, tensor in arrays.items() if (ours := _our_name(name)) is not None}
    # A batch axis of 1 stands before the constant, and two axes of 1 before the noise.
    for name in [name for name in renamed if name == "const" or name.endswith("noise_const")]:
        renamed[name] = renamed[name].squeeze(0) if name == "const" else renamed[name].squeeze(0).squeeze(0)
    return build_stylegan2(renamed, config)

"""Array names of GenForce and Hammer (which PadInv is built on) for StyleGAN2, and their counterparts here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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


GENFORCE_MEAN = "truncation.w_avg"
"""The name by which the files of GenForce differ from those of Hammer, its successor."""


def _our_name(name: str) -> str | None:
    """Our state-dict name; None for arrays that follow from the configuration."""
    if name in ("w_avg", GENFORCE_MEAN):
        return "w_avg"
    if name.endswith(("filter", "kernel")):
        return None
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

    GenForce keeps the values of TensorFlow: kernels of up-sampling layers are the other way round, and biases of styles
    lack the 1 that is added to them. Hammer, and PadInv with it, keeps what the PyTorch code of NVIDIA has.

    Raises:
        CheckpointError: If an array is missing, unknown or of another shape than the configuration says.
    """
    renamed = {ours: tensor for name, tensor in arrays.items() if (ours := _our_name(name)) is not None}
    if GENFORCE_MEAN in arrays:
        for name, tensor in renamed.items():
            if re.fullmatch(r"layers\.\d*[13579]\.weight", name) and tensor.dim() == 4:
                renamed[name] = tensor.flip(2, 3)
            elif name.endswith("affine.bias"):
                renamed[name] = tensor + 1
    # A batch axis of 1 stands before the constant, and two axes of 1 before the noise.
    for name in [name for name in renamed if name == "const" or name.endswith("noise_const")]:
        renamed[name] = renamed[name].squeeze(0) if name == "const" else renamed[name].squeeze(0).squeeze(0)
    return build_stylegan2(renamed, config)


def genforce_config(arrays: Mapping[str, Tensor], settings: Mapping[str, Any] | None = None) -> StyleGAN2Config:
    """Configuration of a StyleGAN2 under these names: what shapes show is taken from them, the rest from settings.

    Args:
        arrays: By the names of the file.
        settings: Keywords of the generator, as far as the file has them.

    Raises:
        CheckpointError: If an array that shows a size is missing, settings and shapes contradict each other, or the
            network is one that StyleGAN2 here is not.
    """
    settings = settings or {}
    if "mapping.label_weight" in arrays:
        raise CheckpointError(
            "it is a conditional StyleGAN2 that normalises noise and label together, which is not supported"
        )
    try:
        shape = {name: tuple(tensor.shape) for name, tensor in arrays.items()}
        layers = sum(re.fullmatch(r"synthesis\.layer\d+\.noise_strength", name) is not None for name in shape)
        depth = sum(re.fullmatch(r"mapping\.dense\d+\.weight", name) is not None for name in shape)
        first, last = shape["mapping.dense0.weight"], shape[f"mapping.dense{depth - 1}.weight"]
        table = tuple(shape[f"synthesis.layer{layer}.weight"][0] for layer in range(0, layers, 2))
        channels = shape[f"synthesis.output{len(table) - 1}.weight"][0]
        config = StyleGAN2Config(
            resolution=2 << len(table),
            z_dim=first[1],
            w_dim=last[0],
            channel_table=table,
            mapping_layers=depth,
            mapping_width=first[0],
            learning_rate_multiplier=float(settings.get("mapping_lr_mul", 0.01)),
            architecture="skip" if "synthesis.output0.weight" in shape else "orig",
            clamp=settings.get("conv_clamp"),
            image_channels=channels,
        )
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise CheckpointError(f"it is no whole StyleGAN2: {error} is missing or has no sense") from error
    for name, found in (("resolution", config.resolution), ("architecture", config.architecture)):
        stated = {"origin": "orig"}.get(settings.get(name, found), settings.get(name, found))
        if stated != found:
            raise CheckpointError(f"its settings say {name} {stated!r}, but its arrays {found}")
    return config

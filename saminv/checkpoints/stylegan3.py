"""Array names of NVIDIA's StyleGAN3, and their counterparts here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .._errors import CheckpointError, InputError
from ..generators import AbstractGenerator, StyleGAN3Config, build_generator

_LAYER = re.compile(r"synthesis\.L(\d{1,2})_(\d{1,5})_(\d{1,5})\.(.+)")
_PARTS = ("weight", "bias", "magnitude_ema", "up_filter", "down_filter", "affine.weight", "affine.bias")
# Keywords of the constructor, ours beside theirs.
_FIELDS = {
    "num_critical": "num_critical",
    "first_cutoff": "first_cutoff",
    "first_stopband": "first_stopband",
    "last_stopband_rel": "last_stopband_rel",
    "margin": "margin_size",
    "output_scale": "output_scale",
    "filter_size": "filter_size",
    "lrelu_upsampling": "lrelu_upsampling",
    "clamp": "conv_clamp",
}


def stylegan3_from_nvlabs(
    arrays: Mapping[str, Tensor], settings: Mapping[str, Any] | None = None, what: str = "It"
) -> AbstractGenerator:
    """Build a StyleGAN3 from the arrays of NVIDIA's code, with the filters that the file holds.

    Args:
        arrays: By the names of the file.
        settings: Keywords of the constructor, which the file carries. What is absent has the value that the code gives
            it, or is read from shapes.
        what: Names the file in errors.

    Raises:
        CheckpointError: If an array is missing, unknown or of another shape than the settings say.
    """
    given = dict(settings or {})
    try:
        given |= given.pop("synthesis_kwargs", None) or {}
        fields = {**_shape(arrays), **{ours: given[theirs] for ours, theirs in _FIELDS.items() if theirs in given}}
        fields["learning_rate_multiplier"] = (given.get("mapping_kwargs") or {}).get("lr_multiplier", 0.01)
        _check_sizes(arrays, StyleGAN3Config(**fields))
    except InputError as error:
        raise CheckpointError(f"{what} is a StyleGAN3 generator that cannot be represented: {error}") from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(f"{what} is no StyleGAN3 generator: {error} is missing or has no sense.") from error
    renamed = {_our_name(name, fields["num_layers"]): tensor for name, tensor in arrays.items()}
    return build_generator("stylegan3", fields, renamed, what)


def _our_name(name: str, torgb: int) -> str:
    """Our state-dict name of an NVIDIA name; the layers are told by their order, the toRGB is the last."""
    if name == "mapping.w_avg":
        return "w_avg"
    if match := re.fullmatch(r"mapping\.(embed|fc(\d{1,2}))\.(weight|bias)", name):
        return f"mapping_network.{'embed' if match[2] is None else f'layers.{match[2]}'}.{match[3]}"
    if match := re.fullmatch(r"synthesis\.(input\..+)", name):
        return match[1]
    match = _LAYER.fullmatch(name)
    if match is None or match[4] not in _PARTS:
        raise CheckpointError(f"{name!r} is no array of an NVIDIA StyleGAN3 generator.")
    return f"{'torgb' if int(match[1]) == torgb else f'layers.{match[1]}'}.{match[4]}"


def _named(arrays: Mapping[str, Tensor]) -> dict[int, re.Match[str]]:
    """Names of the weights by layer."""
    return {int(m[1]): m for name in arrays if (m := _LAYER.fullmatch(name)) and m[4] == "weight"}


def _check_sizes(arrays: Mapping[str, Tensor], config: StyleGAN3Config) -> None:
    """Raise unless the grids of the layers are as large as their names say."""
    for layer, match in _named(arrays).items():
        size = config.band(layer).size
        if size != int(match[2]):
            raise ValueError(f"{match[0].split('.')[1]}, whose grid has {size} samples by the settings,")


def _shape(arrays: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields of the configuration that names and shapes show."""
    named = _named(arrays)
    weights = [arrays[named[layer].string] for layer in range(len(named))]
    depth = sum(re.fullmatch(r"mapping\.fc\d{1,2}\.weight", name) is not None for name in arrays)
    first, embed = arrays["mapping.fc0.weight"], arrays.get("mapping.embed.weight")
    # Only critical layers of a radial network have separable filters.
    radial = any(name.endswith("down_filter") and tensor.dim() == 2 for name, tensor in arrays.items())
    return {
        "resolution": int(named[len(named) - 1][2]),
        "z_dim": first.shape[1] - (0 if embed is None else embed.shape[0]),
        "w_dim": len(arrays["mapping.w_avg"]),
        "label_dim": 0 if embed is None else embed.shape[1],
        "channel_table": tuple(len(weight) for weight in weights[:-1]),
        "num_layers": len(weights) - 1,
        "kernel": weights[0].shape[-1],
        "radial": radial,
        "mapping_layers": depth,
        "image_channels": len(weights[-1]),
    }

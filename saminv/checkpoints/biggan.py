"""Array names and configuration of pytorch-pretrained-BigGAN, and their counterparts here.

Its weights are stored beside the vectors of their spectral norms. What the network uses, ``W / (u . W v)``, is computed
here once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .._errors import CheckpointError
from ..generators import build_generator
from ..generators.biggan_deep import ATTENTION, BLOCKS, BOTTLENECK, BigGANDeep, BigGANDeepConfig

_WHAT = "The BigGAN-deep"
_PREFIX = "generator."
_CONVOLUTIONS = {"theta": "query", "phi": "key", "g": "value", "o_conv": "output"}
_RGB = 3
"""Outputs of the last convolution that become the picture; it has more."""


def biggan_from_huggingface(arrays: Mapping[str, Tensor], settings: Mapping[str, Any]) -> BigGANDeep:
    """Build a BigGAN-deep from the state dictionary and the configuration of pytorch-pretrained-BigGAN.

    Args:
        arrays: Of ``pytorch_model.bin``, by its names.
        settings: What ``config.json`` says. Where it does not list the layers, they are those of the published network
            of its ``output_dim``.

    Raises:
        CheckpointError: If the configuration makes no sense, or an array is missing, unknown, of another shape than the
            configuration says, or not finite.
    """
    fields = _fields(settings)
    config = BigGANDeepConfig(**fields)
    _check_sizes(arrays, config)
    source = _Source(arrays)
    renamed = {"embedding.weight": source.plain("embeddings.weight")}
    renamed |= source.convolution("first", _PREFIX + "gen_z")
    for number, place in enumerate(_places(config)):
        renamed |= _block(source, number, f"{_PREFIX}layers.{place}")
    if config.attention is not None:
        renamed |= _attention(source, f"{_PREFIX}layers.{config.attention}")
    renamed |= _last(source)
    source.check_all_used()
    generator = build_generator("biggan_deep", fields, renamed, _WHAT)
    assert isinstance(generator, BigGANDeep)
    return generator


def _fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of our configuration.

    Raises:
        CheckpointError: If a setting is missing or has no sense.
    """
    try:
        resolution = _whole(settings["output_dim"])
        layers = settings.get("layers") or BLOCKS.get(resolution)
        if layers is None:
            raise ValueError(f"layers must be listed for an output_dim of {resolution}")
        blocks = tuple((bool(up), _whole(inputs), _whole(outputs)) for up, inputs, outputs in layers)
        place = _whole(settings.get("attention_layer_position", ATTENTION), least=0)
        fields: dict[str, Any] = {
            "z_dim": _whole(settings["z_dim"]),
            # The published network has a setting for it, but makes it as long as the noise.
            "embed_dim": _whole(settings["z_dim"]),
            "label_dim": _whole(settings["num_classes"]),
            "width": _whole(settings["channel_width"]),
            "blocks": blocks,
            "attention": place if place < len(blocks) else None,
            "num_statistics": _whole(settings.get("n_stats", 51), least=2),
            "eps": float(settings.get("eps", 1e-4)),
        }
        found = BigGANDeepConfig(**fields).resolution
        if found != resolution:
            raise ValueError(f"output_dim is {resolution}, but the layers make {found} pixels")
    except KeyError as error:
        raise CheckpointError(f"The configuration of the BigGAN-deep has no {error}.") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"The configuration of the BigGAN-deep makes no sense: {error}.") from error
    return fields


def _whole(value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{value!r} is no whole number from {least} up")
    return value


def _check_sizes(arrays: Mapping[str, Tensor], config: BigGANDeepConfig) -> None:
    """Raise unless the largest arrays are there in the sizes of the configuration, before a network is made of it."""
    first = config.blocks[0][1] * config.width
    expected: dict[str, tuple[int, ...]] = {
        "embeddings.weight": (config.embed_dim, config.label_dim),
        f"{_PREFIX}gen_z.weight_orig": (16 * first, config.condition_dim),
    }
    for place, (_, inputs, _) in zip(_places(config), config.blocks):
        name = f"{_PREFIX}layers.{place}"
        middle = inputs * config.width // BOTTLENECK
        expected[f"{name}.conv_1.weight_orig"] = (middle, middle, 3, 3)
        expected[f"{name}.bn_0.running_means"] = (config.num_statistics, inputs * config.width)
    for name, shape in expected.items():
        if name not in arrays:
            raise CheckpointError(f"{_WHAT} has no array {name!r}.")
        if tuple(arrays[name].shape) != shape:
            raise CheckpointError(
                f"{_WHAT}'s array {name!r} is {list(arrays[name].shape)}; its configuration needs {list(shape)}."
            )


def _places(config: BigGANDeepConfig) -> list[int]:
    """Place of each block in the list of the file, in which attention counts too."""
    attention = config.attention
    return [number + (attention is not None and number >= attention) for number in range(len(config.blocks))]


class _Source:
    """Arrays by their names, each of which is to be used."""

    def __init__(self, arrays: Mapping[str, Tensor]) -> None:
        self.arrays, self.used = arrays, set[str]()

    def plain(self, name: str) -> Tensor:
        """The array called ``name``."""
        if name not in self.arrays:
            raise CheckpointError(f"{_WHAT} has no array {name!r}.")
        self.used.add(name)
        found = self.arrays[name]
        if not found.is_floating_point() or not bool(torch.isfinite(found).all()):
            raise CheckpointError(f"{_WHAT}'s array {name!r} must hold finite floating-point numbers.")
        return found.float()

    def normalised(self, name: str) -> Tensor:
        """The weight of a layer, divided by its spectral norm."""
        weight, left, right = (self.plain(f"{name}.weight_{part}") for part in ("orig", "u", "v"))
        flat = weight.flatten(1) if weight.dim() > 1 else weight[None]
        if (len(left), len(right)) != tuple(flat.shape) or left.dim() != 1 or right.dim() != 1:
            raise CheckpointError(
                f"{_WHAT}'s spectral norm of {name!r} is of {list(left.shape)} by {list(right.shape)}, its weight "
                f"{list(weight.shape)}."
            )
        found = weight / (left @ (flat @ right))
        if not bool(torch.isfinite(found).all()):
            raise CheckpointError(f"{_WHAT}'s layer {name!r} has a spectral norm of 0.")
        return found

    def convolution(self, ours: str, name: str) -> dict[str, Tensor]:
        """Weight and bias of a layer under our names."""
        return {f"{ours}.weight": self.normalised(name), f"{ours}.bias": self.plain(f"{name}.bias")}

    def statistics(self, ours: str, name: str) -> dict[str, Tensor]:
        """Tables of a batch norm under our names."""
        means, variances = self.plain(f"{name}.running_means"), self.plain(f"{name}.running_vars")
        return {f"{ours}.means": means, f"{ours}.variances": variances}

    def check_all_used(self) -> None:
        """Raise for arrays that no BigGAN-deep of this configuration has."""
        unknown = sorted(set(self.arrays) - self.used)
        if unknown:
            listed = ", ".join(map(repr, unknown[:3])) + (", ..." if len(unknown) > 3 else "")
            raise CheckpointError(f"{_WHAT} of this configuration has no array {listed}.")


def _block(source: _Source, number: int, name: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for part in range(4):
        ours, norm = f"blocks.{number}.norms.{part}", f"{name}.bn_{part}"
        scale, offset = source.normalised(f"{norm}.scale"), source.normalised(f"{norm}.offset")
        found[f"{ours}.condition.weight"] = torch.cat([scale, offset])
        found |= source.statistics(ours, norm)
        found |= source.convolution(f"blocks.{number}.convs.{part}", f"{name}.conv_{part}")
    return found


def _attention(source: _Source, name: str) -> dict[str, Tensor]:
    found = {
        f"attention.{ours}.weight": source.normalised(f"{name}.snconv1x1_{theirs}")
        for theirs, ours in _CONVOLUTIONS.items()
    }
    return {**found, "attention.gain": source.plain(f"{name}.gamma").squeeze()}


def _last(source: _Source) -> dict[str, Tensor]:
    found = source.statistics("norm", f"{_PREFIX}bn")
    found |= {"norm.scale": source.plain(f"{_PREFIX}bn.weight"), "norm.offset": source.plain(f"{_PREFIX}bn.bias")}
    torgb = source.convolution("torgb", f"{_PREFIX}conv_to_rgb")
    if torgb["torgb.bias"].shape != torgb["torgb.weight"].shape[:1]:
        raise CheckpointError(f"{_WHAT}'s last convolution has another number of biases than of outputs.")
    return found | {name: tensor[:_RGB] for name, tensor in torgb.items()}

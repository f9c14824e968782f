"""Arrays under our names into a frozen StyleGAN2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict

from torch import Tensor

from .._errors import CheckpointError
from ..generators import StyleGAN2, StyleGAN2Config, build_generator

MOST_PIXELS = 2048
"""Side of the largest picture for which noise is made up, so that a small file cannot ask for endless memory."""


def build_stylegan2(arrays: Mapping[str, Tensor], config: StyleGAN2Config) -> StyleGAN2:
    """A frozen StyleGAN2 with these arrays.

    Raises:
        CheckpointError: If an array is missing, unknown or of another shape than the configuration says.
    """
    generator = build_generator("stylegan2", asdict(config), arrays, "it")
    assert isinstance(generator, StyleGAN2)
    return generator


def noise_places(config: StyleGAN2Config) -> Iterator[tuple[str, int]]:
    """Where a network whose file has no constant noise needs some: the beginning of a name, and the side of a layer.

    Raises:
        CheckpointError: If it would take far more memory than such a file has.
    """
    if config.resolution > MOST_PIXELS:
        raise CheckpointError(f"it has no noise, which cannot be made up for {config.resolution:,} pixels")
    for layer in range(config.num_layers):
        yield f"layers.{layer}", config.layer_resolution(layer)

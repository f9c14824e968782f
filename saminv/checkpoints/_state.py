"""Arrays under our names into a frozen StyleGAN2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from torch import Tensor

from ..generators import StyleGAN2, StyleGAN2Config, build_generator


def build_stylegan2(arrays: Mapping[str, Tensor], config: StyleGAN2Config) -> StyleGAN2:
    """A frozen StyleGAN2 with these arrays.

    Raises:
        CheckpointError: If an array is missing, unknown or of another shape than the configuration says.
    """
    generator = build_generator("stylegan2", asdict(config), arrays, "it")
    assert isinstance(generator, StyleGAN2)
    return generator

"""Arrays under our names into a frozen generator."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .._errors import CheckpointError
from ..generators.stylegan2 import StyleGAN2, StyleGAN2Config


def build_stylegan2(arrays: Mapping[str, Tensor], config: StyleGAN2Config) -> StyleGAN2:
    """A frozen StyleGAN2 with these arrays.

    Raises:
        CheckpointError: If an array is missing, unknown or of another shape than the configuration says.
    """
    generator = StyleGAN2(config)
    try:
        generator.load_state_dict(dict(arrays))
    except RuntimeError as error:
        raise CheckpointError(f"The arrays do not fit the configuration {config}: {error}") from error
    generator.freeze()
    return generator

"""A scene's own code: the latent of the demo's generator that stands for given factors."""

from __future__ import annotations

import torch
from torch import Tensor

from .._errors import InputError
from .scenes import CONTINUOUS_FACTORS, FACTORS

EDGE = 1e-3
"""Continuous factors are kept this far from 0 and 1, where their coordinates would be infinite."""
BINARY_COORDINATE = 0.8
"""Size of a binary factor's coordinate: about the mean size of a normal variable."""


def code_of_factors(factors: Tensor, z_dim: int = 64, seed: int = 0) -> Tensor:
    """Latents `[B, z_dim]` whose scene has the ``factors`` `[B, F]`: the inverse of ``factors_from_z``.

    The first coordinates are given by the factors, in the order of ``FACTORS``. The others mean nothing to the scene;
    they are random and scaled so that the latent has unit mean square, which a mapping network then leaves as it is.

    Args:
        factors: In [0, 1]; continuous ones are moved to [0.001, 0.999].
        z_dim: Length of a latent.
        seed: Of the coordinates without meaning.

    Raises:
        InputError: If the factors have another shape or leave [0, 1], ``z_dim`` leaves no coordinate free, or a scene
            has so many extreme factors that no latent of unit mean square has them.
    """
    if factors.dim() != 2 or factors.shape[1] != len(FACTORS) or not bool(((factors >= 0) & (factors <= 1)).all()):
        raise InputError(f"factors must be [B, {len(FACTORS)}] in [0, 1]; got {list(factors.shape)}.")
    if z_dim <= len(FACTORS):
        raise InputError(f"z_dim={z_dim} leaves no room beside {len(FACTORS)} factors; use {len(FACTORS) + 1} or more.")
    split = len(CONTINUOUS_FACTORS)
    continuous = torch.special.ndtri(factors[:, :split].double().clamp(EDGE, 1 - EDGE))
    binary = torch.where(factors[:, split:] > 0.5, BINARY_COORDINATE, -BINARY_COORDINATE).double()
    given = torch.cat([continuous, binary], dim=1)
    left = z_dim - given.square().sum(dim=1, keepdim=True)
    if not bool((left > 0).all()):
        raise InputError("These factors are too extreme all together; no latent of unit mean square has them.")
    source = torch.Generator().manual_seed(seed)
    free = torch.randn(len(factors), z_dim - len(FACTORS), generator=source, dtype=torch.float64).to(given.device)
    free = free * (left / free.square().sum(dim=1, keepdim=True)).sqrt()
    return torch.cat([given, free], dim=1).to(factors.dtype)

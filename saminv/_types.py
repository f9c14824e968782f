"""Shared type names, the shape legend and the image convention.

Shape legend used in every docstring:

* ``B`` images in a batch, ``H`` x ``W`` pixels, ``h`` x ``w`` a feature grid
* ``C`` channels, ``L`` style slots (``num_styles``), ``D`` style dimension (``style_dim``)

Images inside the library are float tensors `[B, 3, H, W]` in [-1, 1]. Only :mod:`saminv.images` knows other forms.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Value = dict[str, Tensor]
"""The tensors of one space, each `[B, ...]`, for example ``{"delta": [B, 512, 32, 32]}``."""

Latents = dict[str, Value]
"""One value per space, for example ``{"W+": {"w": ...}, "F6": {"delta": ...}}``."""

Features = dict[str, Tensor]
"""Tensors of a generator by site name, as returned by ``synthesis(..., until=...)``."""


def flatten(latents: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return latents under flat keys ``"F6/delta"``, the form used in files."""
    return {f"{space}/{name}": tensor for space, value in latents.items() for name, tensor in value.items()}


def unflatten(flat: Mapping[str, Tensor]) -> Latents:
    """Inverse of :func:`flatten`."""
    latents: Latents = {}
    for key, tensor in flat.items():
        space, name = key.rsplit("/", 1)
        latents.setdefault(space, {})[name] = tensor
    return latents


def map_latents(function, *latents: Latents) -> Latents:
    """Apply ``function`` to the corresponding tensors of one or more latents of equal structure."""
    first = latents[0]
    return {s: {n: function(*(other[s][n] for other in latents)) for n in value} for s, value in first.items()}


def per_image(flags: Tensor, like: Tensor) -> Tensor:
    """Reshape `[B]` so that it broadcasts against ``like`` `[B, ...]`."""
    return flags.reshape(-1, *[1] * (like.dim() - 1))


def copy_images(target: Tensor, source: Tensor, which: Tensor) -> None:
    """Overwrite the images ``which`` `[B]` of ``target`` by those of ``source``, both `[B, ...]`, in place."""
    if target.device.type != "cpu":
        # Another device would have to be waited for to learn which.
        torch.where(per_image(which, source), source, target, out=target)
    elif bool(which.all()):
        target.copy_(source)
    elif bool(which.any()):
        target[which] = source[which]

"""Plain torch instance-aware padding."""

from __future__ import annotations

import torch
from torch import Tensor


def pad_ring(x: Tensor, ring: Tensor) -> Tensor:
    """See :func:`saminv.ops.instance_padding.pad_ring`."""
    height, width = x.shape[2:]
    above, left, right, below = ring.to(x.dtype).split([width + 2, height, height, width + 2], dim=2)
    middle = torch.cat([left[..., None], x, right[..., None]], dim=3)
    padded = torch.cat([above[:, :, None], middle, below[:, :, None]], dim=2)
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    return padded.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def ring_of(padded: Tensor) -> Tensor:
    """Inverse of :func:`pad_ring`: the ring `[B, C, 2 (h + w) + 4]` of a map `[B, C, h + 2, w + 2]`."""
    parts = padded[:, :, 0], padded[:, :, 1:-1, 0], padded[:, :, 1:-1, -1], padded[:, :, -1]
    return torch.cat(parts, dim=2)

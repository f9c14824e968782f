"""Instance-aware padding: the border ring of a feature map is given, not zero.

A ring of an `h` x `w` map has ``2 (h + w) + 4`` numbers a channel: the row above (`w + 2`), the column to the left
(`h`), the column to the right (`h`), the row below (`w + 2`).

Derivatives: with respect to map and ring, of every order.

Reference:
    Bai et al., 2022, arXiv 2203.11105, section 3.2 (padding space).
"""

from __future__ import annotations

from torch import Tensor

from ..._errors import InputError
from .._dispatch import choose
from . import reference

__all__ = ["pad_ring", "ring_length", "ring_of"]


def ring_length(height: int, width: int) -> int:
    """Numbers in the ring around a map of this size."""
    return 2 * (height + width) + 4


def pad_ring(x: Tensor, ring: Tensor, *, impl: str = "auto") -> Tensor:
    """Surround a map by a ring; neither argument is written to.

    Args:
        x: `[B, C, h, w]`.
        ring: `[B, C, 2 (h + w) + 4]`, float32 or of the type of the map.
        impl: "auto" | "reference" | "triton".

    Returns:
        `[B, C, h + 2, w + 2]`, in the type and the memory format of ``x``.

    Raises:
        InputError: If the ring does not fit.
    """
    if x.dim() != 4:
        raise InputError(f"A padded map must be [B, C, h, w], got {list(x.shape)}.")
    expected = (*x.shape[:2], ring_length(*x.shape[2:]))
    if tuple(ring.shape) != expected:
        raise InputError(f"The ring around a map {list(x.shape)} must be {list(expected)}, got {list(ring.shape)}.")
    result: Tensor = choose("pad_ring", impl, {"reference": reference.pad_ring, "triton": _kernel}, x, ring)(x, ring)
    return result


def _kernel(x: Tensor, ring: Tensor) -> Tensor:
    from .triton import pad_ring as kernel

    return kernel(x, ring)


def ring_of(padding: Tensor, height: int, width: int) -> Tensor:
    """The ring that a padding map holds for an `h` x `w` feature: the border of its centre.

    Args:
        padding: `[B, C, H, W]`, larger than the feature by 2 or more on both axes, and by an even number.

    Returns:
        `[B, C, 2 (h + w) + 4]`.

    Raises:
        InputError: If the map has another size.
    """
    spare = [have - want - 2 for have, want in zip(padding.shape[-2:], (height, width))]
    if padding.dim() != 4 or any(more < 0 or more % 2 for more in spare):
        raise InputError(
            f"A padding map [B, C, H, W] around {height} x {width} needs sides larger by 2 or an even number more, got "
            f"{list(padding.shape)}."
        )
    top, left = (more // 2 for more in spare)
    return reference.ring_of(padding[:, :, top : top + height + 2, left : left + width + 2])

"""How features lie in memory, and the tiles that kernels cut them into.

A kernel sees an image as a matrix of pixels by channels, whichever of both is contiguous: one kernel serves both memory
formats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TILE = 2048
"""Numbers in a tile, of which a thread holds 16 with the four warps that Triton takes by default.

Compiled for sm_90, the kernels of the layer epilogue need 40 to 72 registers a thread so, and up to 128 with twice the
tile, which would halve the number of warps that wait for memory at a time.
"""
FILTER_TILE = 1024
"""Numbers in a tile that is read through a filter: sixteen loads and their addresses for each number of a thread.

Compiled for sm_90, such kernels need 62 to 72 registers a thread, 80 to 96 with a tile of 2048, up to 168 with 4096.
"""
WIDTH = 64
"""Of a tile along the contiguous axis, in numbers, or more where the other axis is short."""
BAND = 1 << 19
"""Numbers in a band."""


def memory_format(x: Tensor) -> torch.memory_format:
    """The format of a feature `[B, C, h, w]`: channels_last where its memory is, contiguous otherwise."""
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


def dense(x: Tensor, like: Tensor | None = None) -> Tensor:
    """``x`` without gaps, in its own format or in that of another feature."""
    return x.contiguous(memory_format=memory_format(x if like is None else like))


@dataclass(frozen=True)
class Tiles:
    """A feature `[B, C, h, w]` as tiles.

    Attributes:
        shape: Number of tiles along pixels, channels and images.
        pixels, channels: Of one image.
        stride_p, stride_c: Distance of neighbouring pixels and channels in memory.
        block_p, block_c: Sides of a tile, powers of two.
    """

    shape: tuple[int, int, int]
    pixels: int
    channels: int
    stride_p: int
    stride_c: int
    block_p: int
    block_c: int


def tiles(shape: Sequence[int], order: torch.memory_format, size: int = TILE) -> Tiles:
    """Tiles of a feature of a shape `[B, C, h, w]` without gaps, in a memory format."""
    batch, channels, height, width = shape
    pixels, last = height * width, order is torch.channels_last
    inner, outer = (channels, pixels) if last else (pixels, channels)
    block_outer = min(power_of_two(outer), size // WIDTH)
    block_inner = min(power_of_two(inner), size // block_outer)
    block_outer = min(power_of_two(outer), size // block_inner)
    block_p, block_c = (block_outer, block_inner) if last else (block_inner, block_outer)
    counts = (-(-pixels // block_p), -(-channels // block_c), batch)
    strides = (channels, 1) if last else (1, pixels)
    return Tiles(counts, pixels, channels, *strides, block_p, block_c)


def bands(x: Tensor) -> Iterator[tuple[int, int]]:
    """First row, and the one after the last, of the parts of a feature `[B, C, h, w]` that are worked on at a time.

    On a CPU the steps between two convolutions find a band in the cache, and what lies between them takes no memory
    that is new to the process, which costs more than the arithmetic. Elsewhere the feature is one band.
    """
    height = x.shape[2]
    rows = max(1, BAND * height // max(x.numel(), 1)) if x.device.type == "cpu" else height
    for first in range(0, height, rows):
        yield first, min(first + rows, height)


def channel_stride(x: Tensor, order: torch.memory_format) -> int:
    """Distance of neighbouring channels of a feature in a format."""
    return 1 if order is torch.channels_last else x.shape[2] * x.shape[3]


def power_of_two(number: int) -> int:
    """The least power of two that is not below a number."""
    return 1 << max(number - 1, 0).bit_length()

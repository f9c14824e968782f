"""What kernels share: the tile of a program, and reading it through a filter."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile(pixels, channels, stride_p, stride_c, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Pixels and channels of this program's tile of one image, their offsets, and which of them exist."""
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    start = tl.program_id(2).to(tl.int64) * pixels * channels
    there = (p < pixels)[:, None] & (c < channels)[None, :]
    return p, c, start + p[:, None] * stride_p + c[None, :] * stride_c, there


@triton.jit
def filtered(
    x, taps, p, c, pixels, channels, stride_p, stride_c, rows, columns, width, before,
    TAPS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A tile of ``x``, which has ``rows`` x ``columns`` pixels, correlated with the product of ``taps`` `[2, TAPS]`.

    ``p`` counts the pixels of the result, ``width`` in a row; ``before`` zeros lie in front of ``x``.
    """
    top, left = p // width - before, p % width - before
    x += tl.program_id(2).to(tl.int64) * rows * columns * channels
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for i in tl.static_range(TAPS):
        row = top + i
        for j in tl.static_range(TAPS):
            column = left + j
            inside = (p < pixels) & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
            at = (row * columns + column)[:, None] * stride_p + c[None, :] * stride_c
            value = tl.load(x + at, mask=inside[:, None] & (c < channels)[None, :], other=0.0).to(tl.float32)
            total += value * (tl.load(taps + i) * tl.load(taps + TAPS + j))
    return total

"""Block letters of 5 x 7 cells and their exact coverage of pixels at any size."""

from __future__ import annotations

import torch
from torch import Tensor

# Seven rows from the top; the five low bits of a row are its cells from left to right.
_GLYPHS: dict[str, tuple[int, ...]] = {
    "A": (0b01110, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001),
    "C": (0b01111, 0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b01111),
    "E": (0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b11111),
    "F": (0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b10000),
    "G": (0b01111, 0b10000, 0b10000, 0b10011, 0b10001, 0b10001, 0b01111),
    "I": (0b11111, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b11111),
    "J": (0b00111, 0b00010, 0b00010, 0b00010, 0b00010, 0b10010, 0b01100),
    "K": (0b10001, 0b10010, 0b10100, 0b11000, 0b10100, 0b10010, 0b10001),
    "L": (0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b11111),
    "N": (0b10001, 0b11001, 0b11001, 0b10101, 0b10011, 0b10011, 0b10001),
    "O": (0b01110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110),
    "P": (0b11110, 0b10001, 0b10001, 0b11110, 0b10000, 0b10000, 0b10000),
    "R": (0b11110, 0b10001, 0b10001, 0b11110, 0b10100, 0b10010, 0b10001),
    "S": (0b01111, 0b10000, 0b10000, 0b01110, 0b00001, 0b00001, 0b11110),
    "T": (0b11111, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100),
    "W": (0b10001, 0b10001, 0b10001, 0b10101, 0b10101, 0b11011, 0b10001),
    "X": (0b10001, 0b01010, 0b00100, 0b00100, 0b00100, 0b01010, 0b10001),
    "Z": (0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b10000, 0b11111),
    "3": (0b11110, 0b00001, 0b00001, 0b01110, 0b00001, 0b00001, 0b11110),
    "5": (0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110),
    "7": (0b11111, 0b00001, 0b00010, 0b00100, 0b00100, 0b01000, 0b01000),
    "8": (0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110),
}


def text_cells(text: str) -> Tensor:
    """Cells `[7, 6 * len(text) - 1]` of a line of text, 1 where there is ink."""
    columns: list[list[int]] = []
    for letter in text:
        columns += [[row >> shift & 1 for row in _GLYPHS[letter]] for shift in range(4, -1, -1)] + [[0] * 7]
    return torch.tensor(columns[:-1], dtype=torch.float32).T


def cell_coverage(cells: Tensor, box: tuple[float, float, float, float], size: int) -> Tensor:
    """How much of each pixel `[1, 1, size, size]` the ink of ``cells`` `[r, c]` covers, when they fill ``box``.

    ``box`` is (left, top, right, bottom) in units of the picture.
    """
    left, top, right, bottom = box
    rows = _overlap(cells.shape[0], top, bottom, size)
    columns = _overlap(cells.shape[1], left, right, size)
    return (rows.T @ cells @ columns).reshape(1, 1, size, size).clamp_(0, 1)


def _overlap(count: int, start: float, end: float, size: int) -> Tensor:
    # [count, size]: which part of a pixel's extent lies within a cell's.
    edges = torch.linspace(start, end, count + 1).reshape(-1, 1) * size
    pixels = torch.arange(size, dtype=torch.float32)
    return (torch.minimum(edges[1:], pixels + 1) - torch.maximum(edges[:-1], pixels)).clamp_(min=0)

"""Colours, labels and cells of the sheet; nothing here knows what a solution is.

Arrays of pixels are uint8 `[h, w, 3]`; Pillow is imported inside functions. Texts are reduced to ASCII, since that is
what Pillow's own font holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image, ImageFont

Colour = tuple[int, int, int]

PANEL_SIDE = 256
"""Smaller pictures are enlarged by a whole factor towards this side, so that each pixel stays a sharp square."""
LARGEST_SIDE = 360
CELL_WIDTH = 200
"""Least width of a cell: narrow pictures are centred in it, so that captions have room."""

INK: Colour = (34, 34, 34)
FAINT: Colour = (110, 110, 110)
PAPER: Colour = (255, 255, 255)
CARD: Colour = (244, 244, 242)
TITLE, BODY, LABEL, HEADLINE = 23, 18, 17, 42
LINE = 24

# From light to dark with falling luminance all the way, so that the order survives any kind of colour blindness.
DEPTH_RAMP: tuple[Colour, ...] = (
    (252, 238, 158),
    (196, 226, 136),
    (112, 194, 120),
    (34, 146, 146),
    (58, 88, 164),
    (58, 20, 84),
)
HEAT_RAMP: tuple[Colour, ...] = ((8, 8, 16), (78, 18, 96), (178, 48, 82), (240, 132, 44), (255, 250, 200))
# The eight colours of Okabe and Ito, 2008, less black, which is kept for lines.
DISTINCT: tuple[Colour, ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (160, 160, 160),
)


def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own scalable font."""
    from PIL import ImageFont

    return ImageFont.load_default(size)  # type: ignore[return-value]


def plain(text: str) -> str:
    """``text`` with what the font does not hold replaced."""
    return text.encode("ascii", "replace").decode("ascii")


def ramp(anchors: Sequence[Colour], values: np.ndarray) -> np.ndarray:
    """Colours `[..., 3]` uint8 of ``values`` `[...]` in [0, 1], linear between the anchors."""
    places = np.linspace(0, 1, len(anchors))
    channels = [np.interp(values, places, [anchor[c] for anchor in anchors]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def space_colours(names: Sequence[str], last_layer: int) -> dict[str, Colour]:
    """A colour for each space: the style spaces light, feature layers darker the later they are.

    A name has the same colour in every sheet of a generator, whatever the other spaces are.
    """
    colours = {}
    for name in names:
        layer = re.fullmatch(r"[A-Z]+(\d+)", name)
        depth = 0.0 if layer is None else 0.09 + 0.91 * min(1.0, int(layer[1]) / max(1, last_layer))
        red, green, blue = ramp(DEPTH_RAMP, np.array(depth)).tolist()
        colours[name] = (red, green, blue)
    return colours


def distinct_colour(index: int) -> Colour:
    """Colours that can be told apart; after each round through them they are mixed with white, then with black."""
    red, green, blue = DISTINCT[index % len(DISTINCT)]
    turn = (index // len(DISTINCT)) % 3
    other, share = ((0, 0.0), (255, 0.45), (0, 0.35))[turn]
    return tuple(round(value + (other - value) * share) for value in (red, green, blue))  # type: ignore[return-value]


def panel_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which pictures of a size are shown."""
    longer = max(height, width)
    factor: float = max(1, round(PANEL_SIDE / longer)) if longer <= LARGEST_SIDE else PANEL_SIDE / longer
    return max(1, round(height * factor)), max(1, round(width * factor))


def enlarge(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels `[h, w, 3]` at a panel's ``size``: repeated where it is larger, else averaged by a Lanczos filter."""
    from PIL import Image

    larger = size[0] >= pixels.shape[0] and size[1] >= pixels.shape[1]
    method = Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), method))


def enlarge_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels `[h, w]` at a panel's size, by nearest pixel."""
    rows = (2 * np.arange(size[0]) + 1) * labels.shape[0] // (2 * size[0])
    columns = (2 * np.arange(size[1]) + 1) * labels.shape[1] // (2 * size[1])
    return labels[rows[:, None], columns]


def paint_labels(labels: np.ndarray, colours: Mapping[int, Colour], picture: np.ndarray, glimpse: float) -> np.ndarray:
    """Colour labels `[h, w]`, with dark borders, over a share ``glimpse`` of the grey ``picture`` `[h, w, 3]`."""
    ids, index = np.unique(labels, return_inverse=True)
    flat = np.array([colours[int(label)] for label in ids], dtype=float)[index.reshape(labels.shape)]
    grey = picture.astype(float).mean(axis=-1, keepdims=True)
    painted = flat * (1 - glimpse) + grey * glimpse
    border = np.zeros(labels.shape, dtype=bool)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    painted[border] *= 0.35
    return painted.round().astype(np.uint8)


def write_labels(panel: np.ndarray, labels: np.ndarray, names: Mapping[int, str]) -> np.ndarray:
    """Write each label's name where it has most room, larger ones first; names without room are left out."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(panel)
    draw, letters = ImageDraw.Draw(image), font(LABEL)
    ids, counts = np.unique(labels, return_counts=True)
    taken: list[tuple[int, int, int, int]] = []
    for label in ids[np.argsort(-counts, kind="stable")].tolist():
        if not names.get(label):
            continue
        text = plain(names[label])
        left, top, right, bottom = draw.textbbox((0, 0), text, font=letters)
        box = _free_place(labels == label, (int(right - left) + 6, int(bottom - top) + 6), taken)
        if box is not None:
            taken.append(box)
            place = (box[0] + 3 - left, box[1] + 3 - top)
            draw.text(place, text, font=letters, fill=PAPER, stroke_width=2, stroke_fill=INK)
    return np.asarray(image)


def _free_place(
    inside: np.ndarray, size: tuple[int, int], taken: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int, int, int] | None:
    """A box of ``size`` (width, height) about the innermost pixel, moved up or down where others stand already."""
    from scipy import ndimage

    height, width = inside.shape
    # A border of zeros, so that the picture's edge counts as an end of the segment.
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), inside.shape)
    left = min(max(0, int(column) - size[0] // 2), width - size[0])
    for shift in (0, 1, -1, 2, -2):
        top = min(max(0, int(row) - size[1] // 2 + shift * size[1]), height - size[1])
        box = (left, top, left + size[0], top + size[1])
        if left >= 0 and top >= 0 and not any(_overlap(box, other) for other in taken):
            return box
    return None


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@dataclass(frozen=True)
class Cell:
    """A panel and what stands below it.

    Attributes:
        panel: Pixels `[h, w, 3]`, or None for an empty place.
        lines: Text below.
        swatches: Legend below: a colour, a name and a figure each.
        scale: Caption of the right end of a colour bar below, or "".
    """

    panel: np.ndarray | None = None
    lines: Sequence[str] = ()
    swatches: Sequence[tuple[Colour, str, str]] = ()
    scale: str = ""

    @property
    def rows(self) -> int:
        """Lines of text below the panel."""
        return len(self.lines) + len(self.swatches) + 2 * bool(self.scale)


@dataclass
class Page:
    """A grid of cells on white paper, filled row by row.

    Attributes:
        panel: Height and width of the panels.
        columns: Number of columns.
        gap, margin: Pixels between cells, and around all of them.
    """

    panel: tuple[int, int]
    columns: int
    gap: int = 16
    margin: int = 24
    strips: list[Image.Image] = field(default_factory=list)

    @property
    def cell_width(self) -> int:
        return max(self.panel[1], CELL_WIDTH)

    @property
    def width(self) -> int:
        return 2 * self.margin + self.columns * self.cell_width + (self.columns - 1) * self.gap

    def left(self, column: int) -> int:
        return self.margin + column * (self.cell_width + self.gap)

    def _strip(self, height: int) -> Image.Image:
        from PIL import Image

        self.strips.append(Image.new("RGB", (self.width, height), PAPER))
        return self.strips[-1]

    def add_header(self, titles: Sequence[tuple[str, str]]) -> None:
        """Titles of the columns, each with a smaller line below."""
        from PIL import ImageDraw

        draw = ImageDraw.Draw(self._strip(2 * LINE + 14))
        for column, (title, below) in enumerate(titles):
            draw.text((self.left(column), 0), self._cut(title, TITLE), font=font(TITLE), fill=INK)
            draw.text((self.left(column), LINE + 6), self._cut(below, BODY), font=font(BODY), fill=FAINT)

    def add_row(self, cells: Sequence[Cell], card: tuple[str, str] | None = None) -> None:
        """Cells from left to right; a ``card`` with a headline and a line takes the place of the first two."""
        from PIL import ImageDraw

        below = max([cell.rows for cell in cells], default=0)
        strip = self._strip(self.panel[0] + 8 + below * LINE + self.gap)
        draw = ImageDraw.Draw(strip)
        for column, cell in enumerate(cells):
            self._put(strip, self.left(column), cell)
        if card is not None:
            right = self.left(1) + self.cell_width
            draw.rectangle((self.left(0), 0, right - 1, self.panel[0] - 1), fill=CARD)
            middle = ((self.left(0) + right) // 2, self.panel[0] // 2)
            draw.text((middle[0], middle[1] - 20), plain(card[0]), font=font(HEADLINE), fill=INK, anchor="mm")
            draw.text((middle[0], middle[1] + 24), plain(card[1]), font=font(BODY), fill=FAINT, anchor="mm")

    def _put(self, strip: Image.Image, left: int, cell: Cell) -> None:
        from PIL import Image, ImageDraw

        draw, top = ImageDraw.Draw(strip), self.panel[0] + 8
        if cell.panel is not None:
            strip.paste(Image.fromarray(cell.panel), (left + (self.cell_width - self.panel[1]) // 2, 0))
        if cell.scale:
            self._colour_bar(strip, left, top, cell.scale)
            top += 2 * LINE
        for colour, text, figure in cell.swatches:
            draw.rectangle((left, top + 3, left + 26, top + 18), fill=colour, outline=INK)
            draw.text((left + 36, top), plain(text), font=font(BODY), fill=INK)
            draw.text((left + 126, top), plain(figure), font=font(BODY), fill=INK, anchor="ra")
            top += LINE
        for text in cell.lines:
            draw.text((left, top), self._cut(text, BODY), font=font(BODY), fill=INK)
            top += LINE

    def _colour_bar(self, strip: Image.Image, left: int, top: int, scale: str) -> None:
        from PIL import Image, ImageDraw

        draw, width = ImageDraw.Draw(strip), self.cell_width
        bar = ramp(HEAT_RAMP, np.tile(np.linspace(0, 1, width), (14, 1)))
        strip.paste(Image.fromarray(bar), (left, top + 2))
        draw.text((left, top + LINE - 3), "0", font=font(BODY), fill=INK)
        draw.text((left + width, top + LINE - 3), plain(scale), font=font(BODY), fill=INK, anchor="ra")

    def _cut(self, text: str, size: int) -> str:
        """``text`` shortened until it fits a cell."""
        text, letters = plain(text), font(size)
        if letters.getlength(text) <= self.cell_width:
            return text
        while text and letters.getlength(text + "..") > self.cell_width:
            text = text[:-1]
        return text + ".."

    def pixels(self) -> np.ndarray:
        """The whole page, uint8 `[H, W, 3]`."""
        paper = [np.full((self.margin, self.width, 3), 255, np.uint8)]
        return np.concatenate(paper + [np.asarray(strip) for strip in self.strips] + paper)

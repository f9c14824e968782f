"""Pictures of combined inversions: what blending and pair edits made, beside what they were made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..images import from_uint8, to_uint8
from ..solution import Solution
from ._draw import Cell, Page, enlarge, panel_size
from .mix import PairEdit, blend, interpolate, mix_styles

STEPS = 6
"""Pictures of an interpolation."""


def draw_blend(codes: Solution, structure: Solution, spaces: Sequence[str] = ("P",)) -> Tensor:
    """Draw blends of two solutions of B images: inputs, inversions, blend, naive mixing, and the ways between them.

    Args:
        codes, structure, spaces: As for :func:`saminv.editing.blend`.

    Returns:
        `[1, 3, H', W']` in [-1, 1].

    Raises:
        InputError: As for :func:`saminv.editing.blend`.
    """
    page = _page(codes, STEPS)
    moved = ", ".join(spaces)
    others = [name for name in codes.latents if name not in spaces and name != "N"]
    amounts = torch.linspace(0, 1, STEPS).tolist()
    blended, naive = blend(codes, structure, spaces), mix_styles(codes, structure)
    for row in range(len(codes)):
        a, b = codes[row], structure[row]
        page.add_header(
            [
                ("A", "gives the styles"),
                ("B", f"gives {moved}"),
                ("A inverted", ""),
                ("B inverted", ""),
                ("blend", f"{', '.join(others)} of A, {moved} of B"),
                ("naive mixing", "B, later styles of A"),
            ]
        )
        page.add_row(_cells(page, [a.target, b.target, a.image, b.image, blended[row : row + 1], naive[row : row + 1]]))
        for names in (list(spaces), others):
            page.add_header([(f"{', '.join(names)} of B: {amount:.0%}", "all else of A") for amount in amounts])
            page.add_row(_cells(page, list(interpolate(a, b, names, amounts).split(1))))
    return from_uint8(page.pixels())


def draw_pair(pair: PairEdit, pictures: Solution | None = None, strength: float = 1.0) -> Tensor:
    """Draw a pair edit: the pair, the edit by each space on the first picture of it, then on other pictures.

    Args:
        pair: The edit.
        pictures: Solutions of others; none if None.
        strength: Multiple of the change.

    Returns:
        `[1, 3, H', W']` in [-1, 1].
    """
    effects = pair.effects()
    best = max(effects, key=lambda name: effects[name])
    page = _page(pair.before, 4 + len(effects))
    titles = [(f"by {name}", "chosen" if name == best else "") for name in effects]
    page.add_header([("before", ""), ("after", ""), ("before", "inverted"), ("after", "inverted"), *titles])
    first = [pair.before.target, pair.after.target, pair.before.image, pair.after.image]
    lines = [f"effect {value:.2f}" for value in effects.values()]
    cells = _cells(page, [*first, *(pair.apply(pair.before, name) for name in effects)], [""] * 4 + lines)
    page.add_row(cells)
    for row in range(0 if pictures is None else len(pictures)):
        assert pictures is not None
        one = pictures[row]
        done = [pair.apply(one, name, strength) for name in effects]
        name = (one.provenance.get("names") or [""])[0]
        found = _cells(page, [one.target, one.image, *done], [str(name), "inverted"] + [""] * len(done))
        page.add_row([Cell(), Cell(), *found])
    return from_uint8(page.pixels())


def _page(solution: Solution, columns: int) -> Page:
    return Page(panel_size(*solution.image.shape[-2:]), columns)


def _cells(page: Page, images: Sequence[Tensor], lines: Sequence[str] | None = None) -> list[Cell]:
    texts = lines or [""] * len(images)
    shown = [torch.nan_to_num(image.detach().cpu().float()) for image in images]
    pairs = zip(shown, texts)
    return [Cell(enlarge(to_uint8(image)[0], page.panel), lines=[text] if text else []) for image, text in pairs]

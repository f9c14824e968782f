"""Pictures of combined inversions: what blends, feature codes and pair edits made, beside what they were made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..images import from_uint8, to_uint8
from ..solution import Solution
from ._draw import Cell, Page, enlarge, panel_size
from .mix import PairEdit, blend, interpolate, mean_image, mix_styles

STEPS = 6
"""Pictures of an interpolation."""


def draw_blend(codes: Solution, structure: Solution, spaces: Sequence[str] = ("P",)) -> Tensor:
    """Draw blends of two solutions of B images: inputs, inversions, blend, naive mixing, and ways between pictures.

    The ways lead from A to B and from the mean image to A, with one part of the latents moving and the other at rest.

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
        for begin, end, name, rest in ((a, b, "B", "all else of A"), (mean_image(a), a, "A", "all else the mean")):
            for names in (list(spaces), others):
                page.add_header([(f"{', '.join(names)} of {name}: {amount:.0%}", rest) for amount in amounts])
                page.add_row(_cells(page, list(interpolate(begin, end, names, amounts).split(1))))
    return from_uint8(page.pixels())


def draw_codes(pairs: Mapping[str, tuple[Solution, Solution]]) -> Tensor:
    """Draw what feature codes at several layers keep and give away (figure 22 of the Feature-Style paper).

    Args:
        pairs: Solutions of A and of B, one image each, by the name of the code's space, such as "FS5".

    Returns:
        `[1, 3, H', W']` in [-1, 1]: a row for each layer, with both pictures, their inversions, and the code of each
        with the styles of the other.

    Raises:
        InputError: As for :func:`saminv.editing.blend`.
    """
    page = _page(next(iter(pairs.values()))[0], STEPS)
    titles = ["A", "A inverted", "code of A, styles of B", "code of B, styles of A", "B inverted", "B"]
    page.add_header([(title, "") for title in titles])
    for name, (a, b) in pairs.items():
        pictures = [a.target, a.image, blend(b, a, [name]), blend(a, b, [name]), b.image, b.target]
        quality = [f"{float(one.stats['psnr']):.1f} dB" for one in (a, b)]
        page.add_row(_cells(page, pictures, [name, quality[0], "", "", quality[1], name]))
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
    if pictures is None:
        return from_uint8(page.pixels())
    page.add_header([("", ""), ("", ""), ("picture", ""), ("picture", "inverted"), *((by, "") for by, _ in titles)])
    for row in range(len(pictures)):
        one = pictures[row]
        done = [pair.apply(one, name, strength) for name in effects]
        name = (one.provenance.get("names") or [""])[0]
        found = _cells(page, [one.target, one.image, *done], [str(name)] + [""] * (len(done) + 1))
        page.add_row([Cell(), Cell(), *found])
    return from_uint8(page.pixels())


def _page(solution: Solution, columns: int) -> Page:
    return Page(panel_size(*solution.image.shape[-2:]), columns)


def _cells(page: Page, images: Sequence[Tensor], lines: Sequence[str] | None = None) -> list[Cell]:
    texts = lines or [""] * len(images)
    shown = [torch.nan_to_num(image.detach().cpu().float()) for image in images]
    pairs = zip(shown, texts)
    return [Cell(enlarge(to_uint8(image)[0], page.panel), lines=[text] if text else []) for image, text in pairs]

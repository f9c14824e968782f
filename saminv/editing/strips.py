"""Strips of edits: a row for each direction, a column for each strength; and the frames between strengths."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ..generators import AbstractGenerator
from ..images import from_uint8, to_uint8
from ..regions import Regions
from ..solution import Solution
from ..spaces import make_space
from ..spaces._base import SpaceOptions
from ._draw import Cell, Page, enlarge, panel_size
from .edits import applied_edit, edit_solution
from .references import caption, signed

STRENGTHS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
FRAMES = 16
"""Frames of an animation from one strength to the next."""


def draw_strip(
    solution: Solution, directions: Sequence[Any], strengths: Sequence[float] = STRENGTHS, **how: Any
) -> Tensor:
    """Draw edits of each image: a row for each direction, a column for each strength.

    Args:
        solution: Of B images.
        directions: As for :meth:`saminv.Solution.edit`, at least one.
        strengths: At least one.
        how: As for :meth:`saminv.Solution.edit`.

    Returns:
        `[1, 3, H', W']` in [-1, 1].

    Raises:
        InputError: If there is no direction, or as for the edit.
    """
    if not len(directions):
        raise InputError("There is no direction to show; name at least one.")
    page = Page(panel_size(*solution.image.shape[-2:]), len(strengths))
    rows = [applied_edit(solution, direction, strengths, **how) for direction in directions]
    names = solution.provenance.get("names") or [""] * len(solution)
    for index in range(len(solution)):
        for direction, (pictures, applied) in zip(directions, rows):
            own = pictures[index * len(strengths) : (index + 1) * len(strengths)]
            page.add_header([(caption(direction), names[index]), *[("", "")] * (len(strengths) - 1)])
            shown = to_uint8(torch.nan_to_num(own.detach().float().cpu()))
            said = [signed(value) for value in strengths]
            if how.get("safe"):
                amounts = [signed(float(f"{amount:.3g}")) for amount in applied[index].tolist()]
                said = [f"{text} of safe: {amount}" for text, amount in zip(said, amounts)]
            page.add_row([Cell(enlarge(pixels, page.panel), lines=[text]) for pixels, text in zip(shown, said)])
    return from_uint8(page.pixels())


def draw_samples(
    generator: AbstractGenerator,
    directions: Sequence[Any],
    strengths: Sequence[float] = STRENGTHS,
    *,
    samples: int = 1,
    seed: int = 0,
    label: Any = None,
    **how: Any,
) -> Tensor:
    """Draw directions on random samples of a generator, as :func:`draw_strip` does on a solution."""
    return draw_strip(sample_solution(generator, samples, seed, label), directions, strengths, **how)


@torch.no_grad()
def sample_solution(generator: AbstractGenerator, count: int = 1, seed: int = 0, label: Any = None) -> Solution:
    """Random samples of a generator as a solution in its style space, such as W+, whose pictures are its own."""
    styles = generator.mapping(generator.sample_z(count, seed), label)
    image = generator.synthesis(styles)
    assert isinstance(image, Tensor)
    given = None if label is None else torch.as_tensor(label).tolist()
    base = make_space(generator.style_base, generator, SpaceOptions(label=label))
    return Solution(
        latents={base.name: base.init(generator, styles)},
        image=image,
        target=image,
        regions=Regions.uniform(count, generator.image_size, [base.name], base.name, device=image.device),
        status=torch.ones(count, dtype=torch.int64, device=image.device),
        stats={},
        provenance={
            "fingerprint": generator.fingerprint,
            "generator": generator.name,
            "names": [f"sample {seed}.{row}" for row in range(count)],
            "label": given,
        },
        generator=generator,
    )


def draw_frames(
    solution: Solution, directions: Sequence[Any], strengths: Sequence[float], frames: int = FRAMES, **how: Any
) -> Tensor:
    """Frames `[N, 3, H, W]` of an animation of one image: each direction in turn, through all strengths and back.

    Args:
        solution: Of one image.
        directions: As for :meth:`saminv.Solution.edit`.
        strengths: Ends of the ways, at least two.
        frames: From one strength to the next.
        how: As for :meth:`saminv.Solution.edit`.

    Raises:
        InputError: If there are several images, fewer than two strengths, or no direction or frame.
    """
    if len(solution) != 1:
        raise InputError(f"An animation shows one image; this solution has {len(solution)}. Take solution[0].")
    if len(strengths) < 2 or not len(directions) or frames < 1:
        raise InputError(
            "An animation needs a direction, two strengths or more, such as -1 and 1, and a frame or more between them."
        )
    ends = torch.tensor([*strengths, *list(strengths)[-2::-1]], dtype=torch.float64)
    part = torch.arange(frames, dtype=torch.float64) / frames
    way = torch.cat([start + (end - start) * part for start, end in itertools.pairwise(ends)])
    found = [edit_solution(solution, direction, way.tolist(), **how) for direction in directions]
    return torch.nan_to_num(torch.cat(found))

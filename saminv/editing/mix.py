"""Combining inversions: what some spaces hold of one picture, with what the others hold of another.

Padding (P) and feature codes (FS) hold the structure of a picture, styles (W+) its look, so these can be moved apart.

Reference:
    Bai et al., 2022, arXiv 2203.11105, sections 4.3 (P and W+ apart, blending) and 4.4 (one pair of pictures).
    Yao et al., 2022, arXiv 2202.02183, section 5.3 (mixing of FS and W+).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from .._types import Latents, Value
from ..generators import AbstractGenerator
from ..solution import Solution
from ..spaces._base import space_mask, style_base
from .apply import solution_spaces

FINE_LAYERS = 7
"""First style slot of the later 11 of 18, which style mixing takes from the other picture."""
VISIBLE = 0.05
"""Change of a pixel, in [-1, 1], from which a pair of pictures differs there."""


@torch.no_grad()
def render_latents(solution: Solution, latents: Latents) -> Tensor:
    """Picture `[B, 3, H, W]` of latents in the spaces and regions of a solution.

    Raises:
        InputError: If the solution has no generator.
    """
    generator = _generator(solution)
    spaces = solution_spaces(solution)
    base = style_base(spaces)
    masks = {space.name: space_mask(space, generator, solution.regions) for space in spaces}
    taps = [tap for space in spaces for tap in space.bind(generator, latents[space.name], masks[space.name])]
    styles = base.styles(generator, latents[base.name])
    image = generator.synthesis(styles, taps, noise=solution.provenance.get("noise", "const"))
    assert isinstance(image, Tensor)
    return image


@torch.no_grad()
def mean_image(solution: Solution) -> Solution:
    """The picture of the mean styles in the spaces of a solution, with the generator's own padding, features and noise.

    Its regions are those of the solution; its numbers say nothing.
    """
    generator = _generator(solution)
    mean = generator.mean_styles(solution.provenance.get("label")).to(solution.image)
    styles = mean.expand(len(solution), -1, -1)
    latents = {space.name: space.init(generator, styles, None) for space in solution_spaces(solution)}
    image = render_latents(solution, latents)
    return replace(solution, latents=latents, image=image, target=image, stats={})


@torch.no_grad()
def interpolate(first: Solution, second: Solution, spaces: Sequence[str], amounts: Sequence[float]) -> Tensor:
    """Pictures on the way from one solution to another in some spaces only; all others stay those of the first.

    Args:
        first: Of B images; :func:`mean_image` of a solution is possible too.
        second: Of B images, with the same generator and the same spaces.
        spaces: Names of the spaces that move, such as ``["P"]`` or ``["W+"]``; none of those with regions of their own.
        amounts: From 0, the first solution, to 1, where these spaces are the second one's; beyond is possible.

    Returns:
        `[B * K, 3, H, W]` for K amounts, all amounts of the first image first.

    Raises:
        InputError: If the solutions do not go together, or a space cannot be moved.
    """
    _check_pair(first, second)
    moving = _movable(first, spaces)
    if not len(amounts) or not all(math.isfinite(amount) for amount in amounts):
        raise InputError(f"amounts must be some finite numbers, such as [0, 0.25, 0.5, 0.75, 1]; got {list(amounts)}.")
    pictures = []
    for amount in amounts:
        latents = {
            name: _between(first.latents[name], second.latents[name], float(amount)) if name in moving else value
            for name, value in first.latents.items()
        }
        pictures.append(render_latents(first, latents))
    return torch.stack(pictures, dim=1).flatten(0, 1)


def _between(start: Value, end: Value, amount: float) -> Value:
    """The value at ``amount`` of the way between two."""
    # lerp is exact at 0 only.
    return {key: end[key] if amount == 1 else torch.lerp(start[key], end[key], amount) for key in start}


def blend(codes: Solution, structure: Solution, spaces: Sequence[str] = ("P",)) -> Tensor:
    """Pictures with the styles of one solution and the padding, or feature code, of another.

    Args:
        codes: Of B images; what is not in ``spaces`` comes from it.
        structure: Of B images, with the same generator and spaces.
        spaces: What comes from it: ``["P"]`` blends faces as in the padding space paper, ``["FS"]`` mixes styles as in
            the Feature-Style paper.

    Returns:
        `[B, 3, H, W]`.

    Raises:
        InputError: As for :func:`interpolate`.
    """
    return interpolate(codes, structure, spaces, [1.0])


@torch.no_grad()
def mix_styles(codes: Solution, structure: Solution, first_slot: int = FINE_LAYERS) -> Tensor:
    """Naive style mixing: the second solution with the later style slots of the first. `[B, 3, H, W]`.

    Args:
        codes: Gives the slots from ``first_slot`` on.
        structure: Gives all else.
        first_slot: From 0 to the number of slots; 7 leaves the later 11 of 18.

    Raises:
        InputError: If the solutions do not go together, or there is no such slot.
    """
    _check_pair(codes, structure)
    generator = _generator(structure)
    if not 0 <= first_slot <= generator.num_styles:
        raise InputError(f"first_slot must be from 0 to {generator.num_styles}, got {first_slot}.")
    base = style_base(solution_spaces(structure))
    if not base.layered:
        raise InputError(
            f"Mixing needs solutions in {generator.style_base}, with a style for each layer; these are in {base.name}."
        )
    theirs, ours = codes.latents[base.name], structure.latents[base.name]
    mixed = {key: torch.cat([ours[key][:, :first_slot], theirs[key][:, first_slot:]], dim=1) for key in ours}
    return render_latents(structure, {**structure.latents, base.name: mixed})


@dataclass(frozen=True, eq=False)
class PairEdit:
    """An edit that one pair of pictures shows: the same picture before and after.

    Attributes:
        before, after: Solutions of one image each, in the same spaces. The second one should have been started from the
            first one, so that they differ in what the pictures differ in.

    Reference:
        Bai et al., 2022, arXiv 2203.11105, section 4.4.
    """

    before: Solution
    after: Solution

    def __post_init__(self) -> None:
        _check_pair(self.before, self.after)
        if len(self.before) != 1:
            raise InputError(f"A pair edit is shown by one pair of pictures, not by {len(self.before)}.")
        if not bool(self.region.any()):
            raise InputError(
                "The two pictures of the pair are the same, or nearly so; there is no edit to learn from them."
            )

    @property
    def region(self) -> Tensor:
        """Where the pictures differ, bool `[1, 1, H, W]`."""
        return (self.after.target - self.before.target).abs().amax(dim=1, keepdim=True) > VISIBLE

    def change(self, space: str) -> Value:
        """What the edit changes in a space: n_p in "P", n_s in "W+"."""
        _movable(self.before, [space])
        end = self.after.latents[space]
        return {key: end[key] - tensor for key, tensor in self.before.latents[space].items()}

    def effects(self, spaces: Sequence[str] | None = None) -> dict[str, float]:
        """How much of the edit each space does by itself to the first picture: 1 all of it, 0 or less nothing.

        It is the part of the squared difference between the pictures that goes away, where they differ.
        """
        names = [name for name in self.before.latents if _is_movable(self.before, name)] if spaces is None else spaces
        where = self.region
        target = self.after.image.clamp(-1, 1)
        whole = ((target - self.before.image.clamp(-1, 1)).square() * where).sum()
        found = {}
        for name in names:
            done = self.apply(self.before, name).clamp(-1, 1)
            found[name] = float(1 - ((target - done).square() * where).sum() / whole.clamp_min(1e-12))
        return found

    def choose(self, spaces: Sequence[str] | None = None) -> str:
        """The space that does most of the edit."""
        effects = self.effects(spaces)
        return max(effects, key=lambda name: effects[name])

    @torch.no_grad()
    def apply(self, solution: Solution, space: str = "auto", strength: float = 1.0) -> Tensor:
        """Other pictures with this edit, `[B, 3, H, W]`.

        Args:
            solution: Of B images, in the same spaces.
            space: In which to change them; "auto" is :meth:`choose`.
            strength: Multiple of the change.

        Raises:
            InputError: If the solution is of another generator, or lacks the space.
        """
        space = self.choose() if space == "auto" else space
        _check_same(self.before, solution)
        change = self.change(space)
        value = {key: tensor + strength * change[key] for key, tensor in solution.latents[space].items()}
        return render_latents(solution, {**solution.latents, space: value})


def _generator(solution: Solution) -> AbstractGenerator:
    if solution.generator is None:
        raise InputError("This solution has no generator; load it with Solution.load(path, generator=...).")
    return solution.generator


def _check_same(first: Solution, second: Solution) -> None:
    """Raise unless two solutions are of one generator and in the same spaces."""
    for solution in (first, second):
        _generator(solution)
    if first.provenance.get("fingerprint") != second.provenance.get("fingerprint"):
        raise InputError("These solutions belong to different generators; invert both pictures with one.")
    if first.spaces != second.spaces:
        raise InputError(
            f"These solutions are in different spaces, {', '.join(first.spaces)} and {', '.join(second.spaces)}; "
            "invert both pictures into the same ones, such as W+ and P."
        )


def _check_pair(first: Solution, second: Solution) -> None:
    _check_same(first, second)
    if len(first) != len(second):
        raise InputError(f"These solutions have {len(first)} and {len(second)} images; they need as many.")


def _is_movable(solution: Solution, name: Any) -> bool:
    return any(space.name == name and not space.spatial for space in solution_spaces(solution))


def _movable(solution: Solution, names: Sequence[str]) -> list[str]:
    """The names, if each is a space whose value means the same in every picture.

    Raises:
        InputError: If one is not, with those that are.
    """
    if isinstance(names, str):
        raise InputError(f"spaces must be a list of names, for example [{names!r}], not one string.")
    possible = [name for name in solution.latents if _is_movable(solution, name)]
    wrong = [str(name) for name in names if name not in possible]
    if wrong or not names:
        said = f"{', '.join(wrong)} cannot be moved" if wrong else "spaces is empty"
        raise InputError(
            f"{said}. These solutions can exchange {', '.join(possible)}; F<l> belongs to the regions of its picture."
        )
    return list(names)

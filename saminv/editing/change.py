"""What an edit changes: styles of W+, and single channels behind them; and directions, which say how much of it.

Most directions are linear: :class:`LinearDirection`. Others look at the styles that they edit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .._errors import InputError


@dataclass(frozen=True, eq=False)
class Change:
    """A change of the styles of B images.

    Attributes:
        styles: `[1 or B, L, D]`, added to the styles.
        channels: By the name of a style layer, `[1 or B, C]`, added to what that layer makes of its style: a change in
            the style space S.
    """

    styles: Tensor
    channels: Mapping[str, Tensor] = field(default_factory=dict)

    def __add__(self, other: Change) -> Change:
        names = dict.fromkeys([*self.channels, *other.channels])
        zero = self.styles.new_zeros(())
        channels = {name: self.channels.get(name, zero) + other.channels.get(name, zero) for name in names}
        return Change(self.styles + other.styles, channels)


class AbstractDirection(ABC):
    """An edit that has a strength."""

    @abstractmethod
    def change(self, styles: Tensor, strength: Tensor) -> Change:
        """What the edit changes.

        Args:
            styles: Before the edit, `[B, L, D]`.
            strength: `[B]`.
        """

    @abstractmethod
    def in_slots(self, slots: Sequence[int]) -> AbstractDirection:
        """The same edit in some style slots only."""


@dataclass(frozen=True, eq=False)
class LinearDirection(AbstractDirection):
    """A change that is the same for all images and grows with the strength.

    Attributes:
        styles: For strength 1, `[L, D]`.
        channels: For strength 1, by style layer, `[C]`.
        slots: Style slot that each of these layers reads, where there are any.
    """

    styles: Tensor
    channels: Mapping[str, Tensor] = field(default_factory=dict)
    slots: Mapping[str, int] = field(default_factory=dict)

    def change(self, styles: Tensor, strength: Tensor) -> Change:
        strength = strength.to(styles)
        channels = {name: strength[:, None] * part.to(styles) for name, part in self.channels.items()}
        return Change(strength[:, None, None] * self.styles.to(styles), channels)

    def in_slots(self, slots: Sequence[int]) -> LinearDirection:
        channels = {name: part for name, part in self.channels.items() if self.slots[name] in slots}
        return replace(self, styles=_only(self.styles, slots), channels=channels)


@dataclass(frozen=True, eq=False)
class Coordinate(AbstractDirection):
    """A principal component whose coordinate is set, not moved: strength 0 is the mean picture's coordinate.

    The coordinate of an image is read off its first style slot. This is how GANSpace's components are applied to W+ by
    the published editors of encoders; a :class:`LinearDirection` of ``deviation * component`` adds to it instead.

    Attributes:
        component: Of unit length, `[D]`.
        mean: Of w, `[D]`.
        deviation: Standard deviation along the component.
        slots: Style slots that are changed.
    """

    component: Tensor
    mean: Tensor
    deviation: float
    slots: tuple[int, ...]

    def change(self, styles: Tensor, strength: Tensor) -> Change:
        component = self.component.to(styles)
        now = (styles[:, 0] - self.mean.to(styles)) @ component / self.deviation
        moved = (strength.to(styles) - now)[:, None] * component * self.deviation
        return Change(_only(moved[:, None].expand_as(styles), self.slots))

    def in_slots(self, slots: Sequence[int]) -> Coordinate:
        return replace(self, slots=tuple(slot for slot in self.slots if slot in slots))


@dataclass(frozen=True, eq=False)
class Together(AbstractDirection):
    """Several edits at once.

    Attributes:
        parts: Pairs of a direction and its share of the strength.
    """

    parts: tuple[tuple[AbstractDirection, float], ...]

    def change(self, styles: Tensor, strength: Tensor) -> Change:
        changes = [direction.change(styles, share * strength) for direction, share in self.parts]
        total = changes[0]
        for other in changes[1:]:
            total = total + other
        return total

    def in_slots(self, slots: Sequence[int]) -> Together:
        return Together(tuple((direction.in_slots(slots), share) for direction, share in self.parts))


def _only(styles: Tensor, slots: Sequence[int]) -> Tensor:
    """Styles `[..., L, D]` with zeros in all but some slots."""
    keep = torch.zeros(styles.shape[-2], dtype=torch.bool, device=styles.device)
    keep[list(slots)] = True
    return torch.where(keep[:, None], styles, torch.zeros_like(styles))


def parse_slots(text: str, count: int) -> list[int]:
    """Style slots from text such as ``0-3,8``.

    Raises:
        InputError: If it is none, or a slot is not among ``count``.
    """
    found: list[int] = []
    try:
        for word in text.split(","):
            first, _, last = word.partition("-")
            found += range(int(first), int(last or first) + 1)
    except ValueError:
        found = []
    return check_slots(found, count, text)


def check_slots(slots: Sequence[int], count: int, said: object = None) -> list[int]:
    """Style slots in rising order, each once.

    Raises:
        InputError: If there are none, or one is not among ``count``.
    """
    whole = isinstance(slots, Iterable) and all(isinstance(slot, int) for slot in slots)
    chosen = sorted(set(slots)) if whole else []
    if not chosen or chosen[0] < 0 or chosen[-1] >= count:
        given = slots if said is None else said
        raise InputError(f"Style slots are {given!r}; they are numbers from 0 to {count - 1}, such as 0-3,8.")
    return chosen

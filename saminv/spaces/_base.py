"""The interface of a latent space, and how names become spaces."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from .._registry import Registry
from .._types import Features, Latents, Value
from ..generators import AbstractGenerator
from ..regions import Formulation, Regions
from ..sites import STYLE_KINDS, Tap


@dataclass(frozen=True)
class SpaceOptions:
    """Choices that spaces share.

    Attributes:
        formulation: Which form of the regularisers: of the SAM report ("paper") or of its published code.
        tap_point: Where a feature delta acts: "layer", between the convolution and its toRGB, or "block", after the
            toRGB, as published; there the toRGB of its resolution never sees the delta.
        skip: "blend": an edit freezes the RGB image accumulated before a frozen feature with the feature's mask, and
            edits of strength 0 are the reconstruction. "published": only features are blended and no delta is added.
        whiten_features: Measure feature deltas in units of each channel's standard deviation, and penalise them by
            position.
        label: Condition of the mapping, for spaces that go through it.
    """

    formulation: Formulation = "paper"
    tap_point: str = "layer"
    skip: str = "blend"
    whiten_features: bool = True
    label: Tensor | int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("formulation", self.formulation, ("paper", "published")),
            ("tap_point", self.tap_point, ("layer", "block")),
            ("skip", self.skip, ("blend", "published")),
        ):
            if value not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}; got {value!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values for the provenance of a solution: "space_options" and "label"."""
        label = self.label if self.label is None else torch.as_tensor(self.label).tolist()
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "label"}
        return {"space_options": options, "label": label}


class AbstractSpace(ABC):
    """Variables of one kind and the taps they add.

    Attributes:
        name: As the user writes it: "W+", "F6".
        rank: Position in the order of editability; lower is more editable.
        spatial: Whether it takes a mask and takes part in the allocation.
        twin: Whether it cuts others off from the picture, so that the one without it is compared with the target too.
        options: Choices that it shares with the other spaces of a problem.
    """

    name: str
    options: SpaceOptions
    rank: float
    spatial: bool = False
    twin: bool = False

    @property
    def family(self) -> str:
        """The letters that the name begins with: "F" of "F6", "FS" of "FS5", "W" of "W+"."""
        return re.match("[A-Z]*", self.name)[0]  # type: ignore[index]

    @classmethod
    @abstractmethod
    def names(cls, generator: AbstractGenerator) -> list[str]:
        """Names of this family that the generator offers."""

    @classmethod
    def offers(cls, name: str, generator: AbstractGenerator) -> bool:
        """Whether a name of this family stands for a space of the generator; there may be more than :meth:`names`.

        Raises:
            InputError: If the name cannot be read, with what is possible.
        """
        return name in cls.names(generator)

    @classmethod
    def absence(cls, generator: AbstractGenerator) -> str:
        """Why the generator offers none of this family, as a clause after "since"; empty where it offers some."""
        return ""

    @abstractmethod
    def sites(self, generator: AbstractGenerator) -> tuple[str, ...]:
        """Sites that the space sets. Two spaces that share one are in conflict."""

    @abstractmethod
    def init(self, generator: AbstractGenerator, styles: Tensor, warm: Latents | None = None) -> Value:
        """Start that renders the base image of ``styles`` `[B, L, D]`, or the warm start if it has this space."""

    @abstractmethod
    def bind(self, generator: AbstractGenerator, value: Value, mask: Tensor | None) -> list[Tap]:
        """Taps of a value under a mask `[B, 1, h, w]` at the size of its site (None: everywhere)."""

    def edit_taps(
        self, generator: AbstractGenerator, value: Value, mask: Tensor | None, unedited: Features
    ) -> list[Tap]:
        """Taps while an edit is rendered.

        ``unedited`` holds what :meth:`frozen_sites` and :meth:`reference_sites` asked for.
        """
        return self.bind(generator, value, mask)

    def frozen_sites(self, generator: AbstractGenerator) -> tuple[str, ...]:
        """Sites whose unedited tensors :meth:`edit_taps` needs."""
        return ()

    def reference_sites(self, generator: AbstractGenerator) -> tuple[str, ...]:
        """Sites whose tensors without the taps of twins :meth:`edit_taps` and :meth:`reference_penalty` need."""
        return ()

    def reference_penalty(self, generator: AbstractGenerator, value: Value, reference: Features) -> dict[str, Tensor]:
        """Unweighted regularisers that compare a value with the tensors at :meth:`reference_sites`, each `[B]`."""
        return {}

    def anchors(self, generator: AbstractGenerator, styles: Tensor) -> Tensor | None:
        """Styles `[B, L, D]` near the given ones whose pictures the space had better leave as they are, if any."""
        return None

    def penalty(self, generator: AbstractGenerator, value: Value, start: Value) -> dict[str, Tensor]:
        """Unweighted regularisers by name, each `[B]`."""
        return {}

    def shift(self, value: Value, difference: Tensor) -> Value:
        """The value whose taps move the tensor at the space's site by ``difference`` more, if it has such a value."""
        return value

    def step_scale(self, generator: AbstractGenerator, value: Value) -> Value:
        """Factor on the learning rate of each tensor, broadcastable to it."""
        return {}

    def step_basis(self, generator: AbstractGenerator, value: Value, principal: bool = False) -> Value:
        """Basis `[D, D]` (as columns) of the last axis of each tensor in which a solver had better take its steps.

        ``principal`` asks for the basis along whose columns the generator reacts least and most, where there is one.
        """
        return {}

    def _warm(self, warm: Latents | None, like: Value) -> Value:
        """The warm start of this space if there is one that fits, else ``like``."""
        if not warm or self.name not in warm:
            return like
        for key, tensor in like.items():
            given = warm[self.name].get(key)
            if given is None or tuple(given.shape) != tuple(tensor.shape):
                shape = "nothing" if given is None else list(given.shape)
                raise InputError(f"The warm start of {self.name} must have {key!r} {list(tensor.shape)}, got {shape}.")
        return {key: warm[self.name][key].detach().to(t.device, t.dtype).clone() for key, t in like.items()}


class AbstractStyleSpace(AbstractSpace):
    """A space that gives the styles of the whole image, the base that every inversion has.

    Attributes:
        layered: Whether the tensors of its values `[B, L, ...]` have a row for each style slot.
    """

    layered: bool = False

    def sites(self, generator: AbstractGenerator) -> tuple[str, ...]:
        return ("styles",)

    @abstractmethod
    def styles(self, generator: AbstractGenerator, value: Value) -> Tensor:
        """Styles `[B, L, D]` of a value."""


def style_base(spaces: Sequence[AbstractSpace]) -> AbstractStyleSpace:
    """The one style space among the spaces of a problem or a solution."""
    return next(space for space in spaces if isinstance(space, AbstractStyleSpace))


def latent_styles(generator: AbstractGenerator, spaces: Sequence[AbstractSpace], latents: Latents) -> Tensor:
    """Styles `[B, L, D]` that latents stand for: those of the style space, with what other spaces make of them."""
    base = style_base(spaces)
    styles = base.styles(generator, latents[base.name])
    others = [space for space in spaces if space.name in latents and _sets_styles(space, generator)]
    if not others:
        return styles
    taps = [tap for space in others for tap in space.bind(generator, latents[space.name], None)]
    found = generator.synthesis(styles, taps, until="styles")
    assert isinstance(found, dict)
    return found["styles"]


def _sets_styles(space: AbstractSpace, generator: AbstractGenerator) -> bool:
    """Whether a space changes a part of the styles that another one gives."""
    parts = [name for name in space.sites(generator) if generator.site(name).kind in STYLE_KINDS]
    return bool(parts) and not isinstance(space, AbstractStyleSpace)


def mean_slot(parts: Tensor) -> Tensor:
    """Mean over the slots of `[B, L, P]`, which is exactly their value where they are all the same."""
    return parts[:, 0] + (parts - parts[:, :1]).mean(dim=1)


def space_mask(space: AbstractSpace, generator: AbstractGenerator, regions: Regions) -> Tensor | None:
    """The mask of a space at the size of its site `[B, 1, h, w]`; None for spaces that act everywhere."""
    if not space.spatial:
        return None
    return regions.mask(space.name, generator.site(space.sites(generator)[0]))


def cut_off(generator: AbstractGenerator, spaces: Sequence[AbstractSpace], styles: Tensor) -> list[str]:
    """Variables that the picture of ``styles`` `[1, L, D]` does not depend on, since a twin replaces what they change.

    They are named by their sites where a space has several, else by the space.
    """
    values = {space.name: space.init(generator, styles) for space in spaces}
    named = [(name if len(value) == 1 else key, x) for name, value in values.items() for key, x in value.items()]
    for _, tensor in named:
        tensor.requires_grad_()
    taps = [tap for space in spaces for tap in space.bind(generator, values[space.name], None)]
    image = generator.synthesis(styles, taps)
    assert isinstance(image, Tensor)
    gradients = torch.autograd.grad(image.sum(), [tensor for _, tensor in named], allow_unused=True)
    return [name for (name, _), gradient in zip(named, gradients) if gradient is None]


SPACES: Registry[type[AbstractSpace]] = Registry("space")
_FAMILY = re.compile(r"([A-Z]+)(\d+|\d+-\d+|\[.*\])")


def _families() -> list[type[AbstractSpace]]:
    return [SPACES.get(key) for key in SPACES]


def available_spaces(generator: AbstractGenerator) -> list[str]:
    """Names of all spaces that a generator offers, by rank."""
    found = [family(name, SpaceOptions()) for family in _families() for name in family.names(generator)]  # type: ignore[call-arg]
    return [space.name for space in sorted(found, key=lambda space: space.rank)]


def make_space(name: str, generator: AbstractGenerator, options: SpaceOptions) -> AbstractSpace:
    """Turn a name such as "W+" or "F6" into a space of this generator.

    Raises:
        InputError: If no space has that name, or the generator does not offer it; the message lists what it offers.
    """
    if not isinstance(name, str):
        raise InputError(f"A space is named by a string such as 'W+' or 'F6', got {type(name).__name__}.")
    match = _FAMILY.fullmatch(name)
    key = name if name in SPACES else match[1] if match else name
    if key not in SPACES or not SPACES.get(key).offers(name, generator):
        reason = SPACES.get(key).absence(generator) if key in SPACES else ""
        offered = f"This generator offers: {', '.join(available_spaces(generator))}."
        raise InputError(
            f"Unknown space {name!r}. {offered}" + (f" It has no {name}, since {reason}." if reason else "")
        )
    return SPACES.get(key)(name, options)  # type: ignore[call-arg]


def resolve_spaces(
    names: Sequence[str], generator: AbstractGenerator, options: SpaceOptions | None = None
) -> tuple[AbstractSpace, ...]:
    """Turn names into spaces ordered by rank; the generator's style base is added where no style space is named.

    Raises:
        InputError: For an empty list, an unknown or doubled name, or two spaces that set the same site.
    """
    _check_names(names)
    options = options or SpaceOptions()
    spaces = [make_space(name, generator, options) for name in names]
    if not any(isinstance(space, AbstractStyleSpace) for space in spaces):
        spaces.append(make_space(generator.style_base, generator, options))
    owner: dict[str, str] = {}
    for space in spaces:
        for site in space.sites(generator):
            if site in owner:
                raise InputError(f"{owner[site]} and {space.name} both set the site {site!r}; keep one of them.")
            owner[site] = space.name
    return tuple(sorted(spaces, key=lambda space: space.rank))


def _check_names(names: object) -> None:
    if isinstance(names, str):
        raise InputError(f"spaces must be a list of names, for example [{names!r}], not one string.")
    if not isinstance(names, Sequence):
        raise InputError(f"spaces must be a list of names such as ['W+', 'F6'], not {type(names).__name__}.")
    if not names:
        raise InputError("spaces is empty; name at least one, for example ['W+'].")
    twice = [name for position, name in enumerate(names) if name in names[:position]]
    if twice:
        raise InputError(f"spaces names {twice[0]} twice; name each space once.")

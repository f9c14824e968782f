"""Methods of a comparison by name: presets, spaces, and what an encoder says without a step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._arguments import STARTS
from .._errors import InputError
from .._presets import PRESETS
from ..demo.encoders import NAMES, bundled_encoders, bundled_kinds
from ..encoders import ENCODERS, AbstractEncoder, encoder_for
from ..generators import AbstractGenerator

METHODS = ("w+", "pti", "sam")
ENCODER = "encoder"
"""The method that takes what the encoder says."""
SPACE = re.compile(r"[A-Z]+\+?[\d\[\],-]*")


@dataclass(frozen=True)
class Method:
    """One row of a table.

    Attributes:
        name: As it was asked for.
        steps: Of each inversion.
        arguments: Of :func:`saminv.invert`.
    """

    name: str
    steps: int
    arguments: dict[str, Any]

    @property
    def slug(self) -> str:
        """Name of its folder, on any file system."""
        return f"{slug(self.name)}-{self.steps}"

    def title(self, others: Sequence[Method]) -> str:
        """Its name, with the number of steps where that tells rows apart."""
        alike = [other for other in others if other.name == self.name]
        return f"{self.name}, {self.steps} steps" if len(alike) > 1 else self.name


def find_methods(
    names: Sequence[str], budgets: Sequence[int], encoder: Any, generator: AbstractGenerator
) -> list[Method]:
    """The rows that names and numbers of steps stand for, an encoder's own row once.

    Args:
        names: Presets in any case, spaces separated by commas, "encoder", or registered encoders.
        budgets: Numbers of steps.
        encoder: Where methods start that do not say it themselves.
        generator: What all of them invert.

    Raises:
        InputError: If there is none, one is named twice or unknown, or there is no encoder where one is needed.
    """
    different = len({slug(name) for name in names}) == len(names) and len(set(budgets)) == len(budgets)
    if not (names and budgets and different):
        raise InputError(f"methods and steps must each be named once, got {list(names)} and {list(budgets)}.")
    found: list[Method] = []
    for name in names:
        if name.lower() == ENCODER or name in ENCODERS:
            own = _own_encoder(encoder, generator) if name.lower() == ENCODER else name
            found.append(Method(name, 0, _encoder_alone(own, generator)))
            continue
        arguments = _arguments(name)
        if encoder != "auto" and _is_open(arguments):
            arguments["encoder"] = encoder
        found += [Method(name, steps, arguments) for steps in budgets]
    return found


def slug(name: str) -> str:
    """A method's name as that of a folder, on any file system."""
    return re.sub(r"[^\w+-]+", "_", name.lower())


def _arguments(name: str) -> dict[str, Any]:
    """What a method is, as arguments of ``invert``."""
    if name.lower() in PRESETS:
        return {"preset": name.lower()}
    if "," not in name and not SPACE.fullmatch(name):
        # A word that is no space either: the registry knows what is near.
        PRESETS.get(name)
    return {"spaces": [space.strip().upper() for space in name.split(",")]}


def _is_open(arguments: dict[str, Any]) -> bool:
    """Whether a method leaves open where it starts."""
    if "preset" not in arguments:
        return True
    return not any("encoder" in stage.settings for stage in PRESETS.get(arguments["preset"]).stages)


def _own_encoder(given: Any, generator: AbstractGenerator) -> Any:
    """The encoder that was given, the generator's first bundled one, or the first registered one that fits it."""
    if not (isinstance(given, str) and given in STARTS):
        return given
    bundled = bundled_encoders(generator)
    if bundled:
        return bundled[0]
    others = {f"{NAMES}{kind}" for kind in bundled_kinds()}
    for name in (name for name in ENCODERS if name not in others):
        try:
            encoder_for(name, generator)
        except InputError:
            continue
        return name
    known = ", ".join(ENCODERS) or "none"
    raise InputError(
        f"The method {ENCODER!r} is what an encoder says of a picture, and no encoder of this generator is known "
        f"(registered: {known}). Name one with --encoder: its name, or its file."
    )


def _encoder_alone(given: str | Path | AbstractEncoder, generator: AbstractGenerator) -> dict[str, Any]:
    """Arguments of ``invert`` that return what an encoder says."""
    provided = encoder_for(given, generator).provides
    return {"spaces": ["W+", *sorted(provided - {"W+"})], "encoder": given}

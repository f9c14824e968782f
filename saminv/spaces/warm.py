"""Starts of spaces from values of spaces that act at the same sites."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._types import Latents
from ..generators import AbstractGenerator
from ._base import AbstractSpace, AbstractStyleSpace, make_space


def warm_values(
    generator: AbstractGenerator, spaces: Sequence[AbstractSpace], styles: Tensor, found: Latents
) -> Latents:
    """Starts of the spaces after the styles from what somebody else, such as an encoder, says of a picture.

    A space need not have the name that is known: "P5" and "P0-9" start from "P", and "FS" from "FS5", since they set
    the same sites. What is not known of a space starts at the base image; spaces of which nothing is known are left
    out.

    Args:
        generator: Whose spaces they are.
        spaces: That need a start.
        styles: Of the base image `[B, L, D]`.
        found: Values that are known, by the names of their spaces.

    Raises:
        InputError: If the generator has no space of a name that is known.
    """
    warm: Latents = {}
    for space in spaces:
        if isinstance(space, AbstractStyleSpace):
            continue
        sites, start = set(space.sites(generator)), space.init(generator, styles)
        for name, value in found.items():
            if sites & set(make_space(name, generator, space.options).sites(generator)) and start.keys() & value:
                warm.setdefault(space.name, start).update({key: value[key] for key in start.keys() & value.keys()})
    return warm

"""The bundled encoders: where a car scene lies in the spaces of the bundled generator."""

from __future__ import annotations

from .._errors import CheckpointError
from ..encoders import AbstractEncoder
from ..encoders._file import encoder_from_arrays
from ..generators import AbstractGenerator
from ..weights import cards, load_bundled

FILES = "demo-encoder-"
"""Bundled files are called by it and the kind of their encoder."""
NAMES = "demo-"
"""So are the encoders themselves, by this."""
CARD_FIGURE = "encodes"
"""Figure on the card of a bundled encoder that holds its generator's fingerprint; other networks have other ones."""


def bundled_kinds() -> tuple[str, ...]:
    """Kinds of the encoders that have a card."""
    try:
        return tuple(name.removeprefix(FILES) for name in cards() if name.startswith(FILES))
    except CheckpointError:
        # Asked for at the first import, where a damaged list must not stop what needs none of its files.
        return ()


def load_demo_encoder(kind: str) -> AbstractEncoder:
    """A bundled encoder, one of :func:`bundled_kinds`, frozen and in evaluation mode.

    Raises:
        CheckpointError: If there is no such bundled file, or it is damaged.
    """
    name = f"{FILES}{kind}"
    return encoder_from_arrays(*load_bundled(name), f"the bundled {name}")


def bundled_encoders(generator: AbstractGenerator) -> list[str]:
    """Names of the bundled encoders that were trained for a generator."""
    known, kinds = cards(), bundled_kinds()
    return [
        f"{NAMES}{kind}" for kind in kinds if known[f"{FILES}{kind}"].figures.get(CARD_FIGURE) == generator.fingerprint
    ]

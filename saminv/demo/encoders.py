"""The bundled encoders: where a car scene lies in the spaces of the bundled generator."""

from __future__ import annotations

from ..encoders import AbstractEncoder
from ..encoders._file import encoder_from_arrays
from ..generators import AbstractGenerator
from ..weights import cards, load_bundled

FILES = "demo-encoder-"
"""Bundled files are called by it and the kind of their encoder."""
NAMES = "demo-"
"""So are the encoders themselves, by this."""
KINDS = ("padinv", "feature-style", "sam")
CARD_FIGURE = "encodes"
"""Figure on the card of a bundled encoder that holds its generator's fingerprint; other networks have other ones."""


def load_demo_encoder(kind: str) -> AbstractEncoder:
    """A bundled encoder, one of :data:`KINDS`, frozen and in evaluation mode.

    Raises:
        CheckpointError: If the bundled file is missing or damaged.
    """
    name = f"{FILES}{kind}"
    return encoder_from_arrays(*load_bundled(name), f"the bundled {name}")


def bundled_encoders(generator: AbstractGenerator) -> list[str]:
    """Names of the bundled encoders that were trained for a generator."""
    known = cards()
    found = {kind: known[f"{FILES}{kind}"].figures for kind in KINDS if f"{FILES}{kind}" in known}
    return [f"{NAMES}{kind}" for kind, figures in found.items() if figures.get(CARD_FIGURE) == generator.fingerprint]

"""The bundled encoders: where a car scene lies in the spaces of the bundled generator."""

from __future__ import annotations

from pathlib import Path

from .. import weights
from ..encoders import AbstractEncoder
from ..encoders._file import encoder_from_arrays
from ..generators import AbstractGenerator
from ..weights import load_bundled

FILES = "demo-encoder-"
"""Bundled files are called by it and the kind of their encoder."""
NAMES = "demo-"
"""So are the encoders themselves, by this."""
CARD_FIGURE = "encodes"
"""Figure on the card of a bundled encoder that holds its generator's fingerprint; other networks have other ones."""


def bundled_kinds() -> tuple[str, ...]:
    """Kinds of the encoders that are bundled, by the names of the files; none is opened."""
    files = Path(weights.__file__).parent.glob(f"{FILES}*.safetensors")
    return tuple(sorted(path.stem.removeprefix(FILES) for path in files))


def load_demo_encoder(kind: str) -> AbstractEncoder:
    """A bundled encoder, one of :func:`bundled_kinds`, frozen and in evaluation mode.

    Raises:
        CheckpointError: If there is no such bundled file, or it is damaged.
    """
    name = f"{FILES}{kind}"
    return encoder_from_arrays(*load_bundled(name), f"the bundled {name}")


def bundled_encoders(generator: AbstractGenerator) -> list[str]:
    """Names of the bundled encoders that were trained for a generator."""
    known, mine = weights.cards(), generator.fingerprint
    found = {kind: known.get(f"{FILES}{kind}") for kind in bundled_kinds()}
    return [f"{NAMES}{kind}" for kind, card in found.items() if card and card.figures.get(CARD_FIGURE) == mine]

"""Opening encoders: by name, from a file of ours or of others, or as they are."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from .._errors import CheckpointError
from ..generators._base import AbstractGenerator
from ..weights import read_safetensors
from ._base import ENCODERS, AbstractEncoder
from ._file import encoder_from_arrays, is_encoder_file
from .published import load_published


def load_encoder(encoder: str | Path | AbstractEncoder, **settings: Any) -> AbstractEncoder:
    """Open an encoder, frozen and in evaluation mode.

    Args:
        encoder: A registered name, a file that :func:`save_encoder` wrote, a published file, or an encoder, which is
            passed through.
        settings: Of a published file, see :func:`load_published`.

    Raises:
        InputError: For an unknown name; the message lists the known ones.
        CheckpointError: For a file that is missing, damaged or holds something else.
    """
    if isinstance(encoder, AbstractEncoder):
        return encoder
    if str(encoder) in ENCODERS:
        found = ENCODERS.get(str(encoder))()
        found.name = str(encoder)
        return found
    path = Path(encoder).expanduser()
    if not path.suffix and not path.is_file():
        # Lists what is known.
        ENCODERS.get(str(encoder))
    if is_encoder_file(path):
        try:
            found = encoder_from_arrays(*read_safetensors(path.read_bytes(), str(path)), str(path))
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
    else:
        found = load_published(path, **settings)
    found.name = path.stem
    return found


def encoder_for(encoder: str | Path | AbstractEncoder, generator: AbstractGenerator) -> AbstractEncoder:
    """The encoder for a generator, with its device and its type; one that was passed in stays as it is.

    Raises:
        InputError: If it is for another generator; the message says what both are.
        CheckpointError: As :func:`load_encoder`.
    """
    found = load_encoder(encoder)
    found.check(generator)
    weight = next(found.parameters())
    if (weight.device, weight.dtype) == (generator.device, generator.dtype) and not found.training:
        return found
    if found is encoder:
        found = copy.deepcopy(found)
    return found.to(generator.device, generator.dtype).freeze()

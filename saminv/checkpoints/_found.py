"""What a reader makes of a file: :class:`Checkpoint`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

KINDS = ("generator", "discriminator", "encoder", "invertibility", "directions", "solution")
CONVERTED = "saminv.checkpoint.1"
"""Format in the metadata of a file that keeps a foreign checkpoint which is no generator."""
DECODER = "decoder/"
"""Beginning of the names of the arrays of its decoder."""


@dataclass(frozen=True)
class Checkpoint:
    """A network or directions, as read from a file.

    Attributes:
        kind: "generator", "discriminator", "encoder", "invertibility", "directions" or "solution".
        family: Of a generator or discriminator: "stylegan1", "stylegan2", "stylegan3" or "biggan_deep"; of an encoder
            its method: "e4e", "psp", "restyle", "padinv" or "feature-style". Empty otherwise.
        form: Who writes such files, for messages: "NVIDIA PyTorch pickle".
        names: Whose array names these are: "nvlabs", "tensorflow", "rosinality", "genforce", "huggingface" or "saminv".
        arrays: By the names of the file, in its types.
        settings: What the file says about the network, by its own keywords.
        part: Which of its networks this is; empty where there is one only.
        parts: All networks in the file.
        notes: What had to be assumed or is missing, as sentences.
        decoder: The generator that belongs to an encoder, where the file has one.
    """

    kind: str
    family: str
    form: str
    names: str = ""
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    parts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    decoder: Checkpoint | None = None

    def owned(self) -> Checkpoint:
        """The same with arrays of its own, which do not lie in the file any more."""
        arrays = {name: tensor.clone() for name, tensor in self.arrays.items()}
        return replace(self, arrays=arrays, decoder=None if self.decoder is None else self.decoder.owned())

"""Measured error maps: what an invertibility network is trained on.

A data set is a folder with one sub-folder per space, ``<folder>/<space>/results/<name>.safetensors``. A file holds the
target and the spatial perceptual error of its inversion into that space alone (e_l of Eq. 3.1). The files of a name in
all spaces are one example.

Reference:
    Parmar, "Spatially-Adaptive Multilayer GAN Inversion and Editing", 2022, CMU-RI-TR-22-26 (arXiv:2206.08357),
    section 3.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._errors import CheckpointError, InputError
from ._error_file import ErrorRecord, read_errors, read_record, save_errors

__all__ = ["ErrorMaps", "ErrorRecord", "held_out", "read_errors", "read_record", "save_errors"]

RESULTS = "results"
_NAMED = 5
"""How many names a message lists."""


class ErrorMaps(Sequence[tuple[Tensor, Tensor]]):
    """A folder of measured error maps, one example for each name that all spaces have.

    ``maps[i]`` is an image `[3, H, W]` in [-1, 1] and its errors `[K, H, W]` >= 0, in the order of ``spaces``.

    Args:
        folder: The data set.
        spaces: Names of the spaces; those in the folder, W and W+ first, if None.

    Attributes:
        folder: The data set.
        spaces: Names of the spaces.
        names: Names of the examples.
        missing: Names by space that some other space has and this one lacks; they are no examples.
        fingerprint: Of the generator of all files.
        metric: Name of the perceptual metric of all files.
        steps: Of all inversions.
        image_size: Height and width of all targets.

    Raises:
        InputError: If a space is asked for twice or has no folder, or no name is there for all spaces.
        CheckpointError: If a file is damaged, or files do not belong together; the message names them.
    """

    def __init__(self, folder: str | Path, spaces: Sequence[str] | None = None) -> None:
        self.folder = Path(folder)
        self.spaces = _asked_spaces(self.folder, spaces)
        present = {space: _names(self.folder / space / RESULTS) for space in self.spaces}
        every = set().union(*present.values())
        self.names = tuple(sorted(set.intersection(*(set(found) for found in present.values()))))
        self.missing = {space: tuple(sorted(every - found)) for space, found in present.items() if every - found}
        if not self.names:
            counts = ", ".join(f"{space}: {len(found)}" for space, found in present.items())
            raise InputError(f"{self.folder} has no example that was measured in all spaces ({counts} files).")
        self._records = {name: self._read(name) for name in self.names}
        self._check_agreement()
        first = self._records[self.names[0]][0]
        self.fingerprint, self.metric, self.steps, self.image_size = (
            first.fingerprint,
            first.metric,
            first.steps,
            first.size,
        )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        pairs = [read_errors(record) for record in self._records[self.names[index]]]
        return pairs[0][0], torch.stack([error for _, error in pairs])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images `[B, 3, H, W]` and errors `[B, K, H, W]` of some examples."""
        images, errors = zip(*(self[index] for index in indices))
        return torch.stack(images), torch.stack(errors)

    def records(self, index: int) -> dict[str, ErrorRecord]:
        """Headers of an example by space."""
        return dict(zip(self.spaces, self._records[self.names[index]]))

    def hash(self, index: int) -> str:
        """SHA-256 of an example's image, hexadecimal."""
        return self._records[self.names[index]][0].hash

    def select(self, indices: Sequence[int]) -> ErrorMaps:
        """The same folder with some of its examples only."""
        other = object.__new__(ErrorMaps)
        other.__dict__.update(self.__dict__)
        other.names = tuple(self.names[index] for index in indices)
        return other

    def split(self, share: float = 0.15) -> tuple[ErrorMaps, ErrorMaps]:
        """Examples for training and about ``share`` of them for validation, by the hash of the image.

        An example's side depends on its image and ``share`` alone: it stays when others are added, and a copy of an
        image is on the same side as the image. So the share is met for many images only, and a side may be empty.

        Raises:
            InputError: If ``share`` does not lie between 0 and 1.
        """
        if not 0 < share < 1:
            raise InputError(f"The share of images for validation must lie between 0 and 1, not {share!r}.")
        held = [held_out(self.hash(index), share) for index in range(len(self))]
        return tuple(self.select([k for k, out in enumerate(held) if out == side]) for side in (False, True))  # type: ignore[return-value]

    def describe(self) -> str:
        """What is there and what is missing, in a sentence or two."""
        height, width = self.image_size
        text = f"{len(self)} images of {height} x {width} pixels measured in {', '.join(self.spaces)}."
        for space, names in self.missing.items():
            text += f" {space} lacks {_listed(names)}."
        return text

    def _read(self, name: str) -> tuple[ErrorRecord, ...]:
        found = tuple(read_record(self.folder / space / RESULTS / f"{name}.safetensors") for space in self.spaces)
        for space, record in zip(self.spaces, found):
            if record.space != space:
                raise CheckpointError(f"{record.path} holds errors of the space {record.space}; move it to its folder.")
        return found

    def _check_agreement(self) -> None:
        """Raise unless all files are of one generator, metric and number of steps, and each example of one image."""
        first = self._records[self.names[0]][0]
        for records in self._records.values():
            for record in records:
                for what in ("fingerprint", "metric", "steps", "size"):
                    ours, theirs = getattr(first, what), getattr(record, what)
                    if ours != theirs:
                        raise CheckpointError(
                            f"{first.path} and {record.path} do not belong together: {_WORDS[what]} are {ours} and "
                            f"{theirs}. Measure one of them again, or keep them in different folders."
                        )
                if record.hash != records[0].hash:
                    raise CheckpointError(
                        f"{records[0].path} and {record.path} have the same name, but other images; measure one again."
                    )


_WORDS = {
    "fingerprint": "the fingerprints of their generators",
    "metric": "their metrics",
    "steps": "their steps",
    "size": "the sizes of their images",
}


def held_out(digest: str, share: float) -> bool:
    """Whether an image with this SHA-256 (hexadecimal) belongs to the ``share`` that is held out of training."""
    return int(digest[:13], 16) < share * 16**13


def _asked_spaces(folder: Path, spaces: Sequence[str] | None) -> tuple[str, ...]:
    if isinstance(spaces, str):
        raise InputError(f"spaces must be a list of names, for example [{spaces!r}], not one string.")
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; measure error maps first.")
    there = sorted((p.parent.name for p in folder.glob(f"*/{RESULTS}") if p.is_dir()), key=_order)
    if not there:
        raise InputError(f"{folder} holds no measured error maps (<space>/{RESULTS}/<name>.safetensors).")
    asked = tuple(there if spaces is None else spaces)
    absent = [space for space in asked if space not in there]
    if absent or not asked or len(set(asked)) != len(asked):
        problem = f"has nothing for {', '.join(absent)}" if absent else f"cannot be read for the spaces {list(asked)}"
        raise InputError(f"{folder} {problem}. It has: {', '.join(there)}.")
    return asked


def _order(space: str) -> tuple[int, str]:
    """Sort key: spaces without a number first, then by number, as editability goes within a family."""
    number = re.search(r"\d+", space)
    return (int(number[0]) if number else -1, space)


def _names(folder: Path) -> set[str]:
    # A file being written, or left by a killed run, starts with a dot.
    found = (path for path in folder.rglob("*.safetensors") if not path.name.startswith("."))
    return {path.relative_to(folder).as_posix().removesuffix(".safetensors") for path in found}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more

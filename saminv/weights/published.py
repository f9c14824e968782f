"""Weights that others have published: where they come from, reading them safely, fitting them to a network."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._errors import CheckpointError, InputError, WeightsError
from ._fetch import fetch, obtain, weights_folder

Weights = str | PathLike | Mapping[str, Tensor] | None
"""A file, a folder that holds it, a state dict, or None: look in the weights folder, else fetch."""

IGNORED = re.compile(r"\.(num_batches_tracked|_running_iter|_tmp_running_(mean|var))$")
"""Counters of normalisation layers, which evaluation does not use; files have them or not."""
_NUMPY_CORE = np.ndarray.__reduce__(np.zeros(0))[0].__module__.removesuffix(".multiarray")  # type: ignore[union-attr]


@dataclass(frozen=True)
class WeightFile:
    """A published weight file.

    Attributes:
        url: Where the file comes from; its last part is the file's name.
        minimal_size: Bytes that the whole file has at least.
        sha256: Its SHA-256 or the first digits of it, if known.
        md5: The first digits of its MD5, if that is what is published.
        folder: Folder inside the weights folder, for files whose name is not telling.
        aliases: Other names under which people keep the same file.
    """

    url: str
    minimal_size: int
    sha256: str | None = None
    md5: str | None = None
    folder: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """File name."""
        return self.url.rsplit("/", 1)[1]

    def find(self, given: str | PathLike | None = None) -> Path:
        """Return the path of the file: the given one, the one in the weights folder, or a fetched one.

        Files without a published checksum are not fetched.

        Raises:
            WeightsError: If the file is not there and cannot be fetched; says where it comes from and where to put it.
            CheckpointError: If the file is too small to be whole.
        """
        folder = weights_folder() / self.folder
        place = folder if given is None else Path(given).expanduser()
        if given is None or place.is_dir():
            for name in (self.name, *self.aliases):
                if (place / name).is_file():
                    return self._whole(place / name)
        if given is not None:
            return obtain(self.url, sha256=self.sha256, minimal_size=self.minimal_size, given=place)
        if self.sha256 is None and self.md5 is None:
            raise WeightsError(
                f"The weights {self.name} are not on this machine, and are not fetched, since no checksum of them is "
                f"published. Get the file from {self.url} and put it at {folder / self.name}, or pass its path "
                "(weights=...)."
            )
        path = fetch(self.url, folder / self.name, sha256=self.sha256, minimal_size=self.minimal_size)
        if self.md5 is not None and not _md5(path).startswith(self.md5):
            path.unlink()
            raise WeightsError(
                f"What came from {self.url} is another file: its MD5 does not begin with {self.md5}; it was removed. "
                f"Put the right one at {path}, or pass its path (weights=...)."
            )
        return path

    def _whole(self, path: Path) -> Path:
        size = path.stat().st_size
        if size < self.minimal_size:
            raise CheckpointError(
                f"{path} has {size} bytes; the whole file has at least {self.minimal_size}. Delete it and get it "
                f"again from {self.url}"
            )
        return path

    def read(self, given: Weights = None) -> Mapping[str, Tensor]:
        """Return the tensors of the file, or of the state dict that is given instead of it."""
        if isinstance(given, Mapping):
            return plain_state(given, "the given state dict")
        if given is not None and not isinstance(given, (str, PathLike)):
            raise InputError(f"weights must be a path, a state dict or None, not {type(given).__name__}.")
        return read_state(self.find(given))


def read_state(path: Path) -> Mapping[str, Tensor]:
    """Tensors of a file by name: safetensors, torch.save, or a pickle of numpy arrays (.pkl). Nothing is executed.

    Raises:
        CheckpointError: If the file is damaged or holds anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        elif path.suffix == ".pkl":
            state = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        else:
            # A memory map spares reading the parts that are not used; files of the older format cannot be mapped.
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as weights ({type(error).__name__}: {str(error)[:200]}). It may be damaged, a web "
            "page, or another kind of file: delete it and get it again."
        ) from error
    return plain_state(state, str(path))


def plain_state(state: Any, source: str) -> Mapping[str, Tensor]:
    """Return a state dict without wrapping: neither under "state_dict" or "model", nor with names in "module."."""
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"{source} holds no state dict of tensors; it is not what is needed.")
    tensors = {
        key: torch.from_numpy(value) if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" else value
        for key, value in state.items()
    }
    wrong = [key for key, value in tensors.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if wrong:
        raise CheckpointError(f"{source} holds {wrong[0]!r}, which is no tensor; it is not what is needed.")
    wrapped = all(key.startswith("module.") for key in tensors)
    return {key.removeprefix("module."): value for key, value in tensors.items()} if wrapped else tensors


def fit(
    network: nn.Module, state: Mapping[str, Tensor], expected: str, *, unused: tuple[str, ...] = (), own: str = r"(?!)"
) -> nn.Module:
    """Put a state dict into a network, freeze it, and return it in evaluation mode.

    Args:
        network: May be on the meta device.
        state: Tensors by name; floating-point ones are taken as float32.
        expected: The file that is needed, for messages.
        unused: Beginnings of names that the state may have and the network does not, such as heads for training.
        own: Pattern of names whose tensors the network has itself, if the state lacks them.

    Raises:
        CheckpointError: If a tensor is missing, unknown or of another shape; names the first one.
    """
    filled, slots = {}, network.state_dict()
    for name, slot in slots.items():
        if name not in state and IGNORED.search(name):
            filled[name] = torch.zeros(slot.shape, dtype=slot.dtype)
        elif name not in state and re.search(own, name):
            filled[name] = slot
        elif name not in state or state[name].shape != slot.shape:
            found = list(state[name].shape) if name in state else "no such tensor"
            raise CheckpointError(
                f"These weights do not fit: {name!r} should be {list(slot.shape)}, found {found}. Needed is {expected}."
            )
        else:
            filled[name] = state[name].detach().to("cpu", slot.dtype, copy=True)
    for name in state:
        if name not in slots and not IGNORED.search(name) and not name.startswith(unused or "\0"):
            raise CheckpointError(
                f"These weights do not fit: the network has no {name!r} {list(state[name].shape)}. "
                f"Needed is {expected}."
            )
    network.load_state_dict(filled, strict=True, assign=True)
    return network.requires_grad_(False).eval()


class _ArraysOnly(pickle.Unpickler):
    """Unpickles plain containers and numpy arrays; any other name in the file is an error, and nothing is called."""

    ALLOWED = frozenset(
        {
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "scalar"),
            ("collections", "OrderedDict"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        # numpy 2 moved the module; files may have been written by either.
        if (module.replace("numpy._core", "numpy.core"), name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"the file wants to run {module}.{name}")
        return super().find_class(module.replace("numpy.core", _NUMPY_CORE), name)


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()

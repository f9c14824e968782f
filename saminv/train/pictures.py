"""A folder of pictures as one array on disk, which a training reads from.

Every picture is decoded and fitted once. What comes out is kept in shards, NumPy arrays that appear whole or not at
all, with the SHA-256 of the file that each row came from. A later call reads the shards, and decodes what is new. Names
of files do not matter: a folder that was moved or renamed is the same data.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .. import images
from .._errors import ImageError, InputError, OutputError, SaminvError
from .._files import atomic_write, ensure_folder, reason
from .._sources import Item, collect
from ._resume import mixed

FITS = ("crop", "letterbox", "auto")
SHARD_BYTES, SHARD_ROWS = 64_000_000, 1000
"""A shard ends with so many bytes or rows; what an interruption loses is less than one."""
MOST_BROKEN = 0.1
FORM = 1
"""Changes when a picture would come out otherwise; shards of another form are left alone."""
FILES = "files.json"
_NAMED = 5
"""How many broken files a message lists."""
_SPARE = 2
"""A JPEG file is read with at least so many times the side that is asked for, so that fitting has pixels to average."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of one size, in the order of the SHA-256 of their files; pixels stay on disk until they are asked for.

    Attributes:
        resolution: Their side.
        fit: How they were fitted to it: "crop", "letterbox" or "auto", see :func:`saminv.images.fit`.
        digests: SHA-256 of each picture's file, hexadecimal.
        broken: Files that cannot be read, and why.
        repeated: Number of files that are copies of others, which are used once.
        enlarged: Number of pictures that had fewer pixels than are asked for.
        name_digest: SHA-256 of the name of the folder, or of the names of all sources.
    """

    resolution: int
    fit: str
    digests: tuple[str, ...]
    broken: Mapping[str, str]
    repeated: int
    enlarged: int
    name_digest: str
    _rows: Sequence[np.ndarray] = field(repr=False)

    def __len__(self) -> int:
        return len(self.digests)

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Some of the pictures as float images `[B, 3, R, R]` in [-1, 1]."""
        return images.from_uint8(np.stack([self._rows[index] for index in indices]))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all pictures and how they were fitted; names and order do not matter."""
        digest = hashlib.sha256(f"{self.resolution} {self.fit} {FORM}\n".encode())
        digest.update("\n".join(self.digests).encode())
        return digest.hexdigest()

    def describe(self) -> str:
        """How many there are, and what was found on the way, in some sentences."""
        text = f"{len(self)} pictures of {self.resolution} x {self.resolution} pixels."
        if self.repeated:
            text += f" {self.repeated} copies were left out."
        if self.enlarged:
            text += f" {self.enlarged} were smaller than that and are enlarged."
        if self.broken:
            text += f" {len(self.broken)} cannot be read and are passed over."
        return text


def prepare_pictures(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    cache: str | os.PathLike[str],
    resolution: int,
    *,
    fit: str = "crop",
    limit: int | None = None,
    most_broken: float = MOST_BROKEN,
    barred: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Pictures:
    """Decode pictures into the cache, or find them there; the same call goes on after an interruption.

    Files are read as :func:`saminv.images.load` does: upright, the first of several frames, transparency on white, grey
    and 16 bits as RGB. JPEG files may be decoded at a part of their size.

    Args:
        sources: Picture files, and folders, which are searched with all folders below them.
        cache: Folder of the array; may be shared by trainings on any pictures.
        resolution: Side of the result.
        fit: "crop" (the largest centred square), "letterbox" (all of it, edges repeated) or "auto".
        limit: Number of files to take, the first in natural order; all if None.
        most_broken: Largest part of the files that may be unreadable.
        barred: Folder whose pictures are no sources, such as that of the training.
        progress: Show a bar.

    Raises:
        InputError: If a setting is impossible, there are no pictures, none can be read, or too many cannot.
        OutputError: If the cache cannot be written, or there is no space for it.
    """
    if resolution < images.MIN_SIDE:
        raise InputError(f"resolution is {resolution}; it must be at least {images.MIN_SIDE} pixels.")
    if fit not in FITS:
        raise InputError(f"fit is {fit!r}; it is one of {', '.join(FITS)}.")
    if not 0 <= most_broken < 1:
        raise InputError(f"most_broken is {most_broken}; it is a part of the files, from 0 to less than 1.")
    names = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    items = collect(names, out=barred, limit=limit)
    store = _Store(ensure_folder(Path(cache) / f"{resolution}-{fit}-{FORM}"), resolution, fit)
    digests, broken = store.fill(items, progress)
    _check_broken(broken, len(items), most_broken)
    every = tuple(sorted(set(digests)))
    rows = [store.rows[digest] for digest in every]
    told = "\n".join(Path(os.path.abspath(name)).name for name in names)
    return Pictures(
        resolution,
        fit,
        every,
        broken,
        len(digests) - len(every),
        sum(bool(row["enlarged"]) for row in rows),
        hashlib.sha256(told.encode()).hexdigest(),
        [row["pixels"] for row in rows],
    )


class _Store:
    """The shards in a folder, and the files whose content is known."""

    def __init__(self, folder: Path, resolution: int, fit: str) -> None:
        self.folder, self.resolution, self.fit = folder, resolution, fit
        self.kind = np.dtype(
            [("digest", "S64"), ("enlarged", "?"), ("pixels", "u1", (resolution, resolution, 3))], align=False
        )
        self.rows: dict[str, np.ndarray] = {}
        self.waiting: list[np.ndarray] = []
        self.known = self._read_known()
        for path in sorted(folder.glob("shard-*.npy")):
            self._open(path)

    def fill(self, items: Sequence[Item], progress: bool) -> tuple[list[str], dict[str, str]]:
        """Make sure that every readable file has its row; returns their digests and why others cannot be read."""
        digests, broken = [], {}
        bar = tqdm(items, unit="picture", desc="reading", disable=not progress, mininterval=1)
        try:
            # What is made of odd pictures is documented; thousands of warnings would help nobody.
            with bar, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for number, item in enumerate(bar):
                    try:
                        digest = self._digest(item.path)
                        if digest not in self.rows:
                            self._add(item.path, digest, len(items) - number)
                    except ImageError as error:
                        broken[item.name] = str(error)
                    else:
                        digests.append(digest)
        except SaminvError:
            raise
        except BaseException:
            # Ctrl-C, above all: what is decoded is kept.
            self._flush()
            raise
        self._flush()
        return digests, broken

    def _digest(self, path: Path) -> str:
        """SHA-256 of a file, computed again only where its size or time has changed."""
        try:
            about = path.stat()
            stamp = [about.st_size, about.st_mtime_ns]
            before = self.known.get(str(path))
            if before is not None and before[:2] == stamp:
                return str(before[2])
            with path.open("rb") as file:
                digest = _digest_of(file)
        except OSError as error:
            raise ImageError(f"{path} cannot be read: {error.strerror or error}.") from error
        self.known[str(path)] = [*stamp, digest]
        return digest

    def _add(self, path: Path, digest: str, left: int) -> None:
        """Decode a picture; ``left`` pictures are to come, this one included."""
        if not self.waiting:
            self._check_space(left)
        side = self.resolution
        picture = images.load(path, least=_SPARE * side)
        fitted, crop = images.fit(picture, (side, side), self.fit)
        left_edge, top, right, bottom = crop.inner
        small = min(crop.box[2] - crop.box[0], crop.box[3] - crop.box[1]) < min(right - left_edge, bottom - top)
        row = np.zeros((), self.kind)
        row["digest"], row["enlarged"], row["pixels"] = digest.encode(), small, images.to_uint8(fitted)[0]
        self.rows[digest] = row
        self.waiting.append(row)
        if len(self.waiting) >= max(1, min(SHARD_ROWS, SHARD_BYTES // self.kind.itemsize)):
            self._flush()

    def _flush(self) -> None:
        """Write what is waiting as a shard, and read it from there."""
        if self.waiting:
            shard = np.stack(self.waiting)
            name = hashlib.sha256(shard["digest"].tobytes()).hexdigest()[:16]
            path = self.folder / f"shard-{name}.npy"
            # Not straight into the file: NumPy would hide that the disk is full.
            buffer = io.BytesIO()
            np.save(buffer, shard)
            with atomic_write(path) as temporary:
                temporary.write_bytes(buffer.getbuffer())
            self.waiting = []
            self._open(path)
        with atomic_write(self.folder / FILES) as temporary:
            temporary.write_text(json.dumps(self.known), encoding="utf-8")

    def _open(self, path: Path) -> None:
        try:
            shard = np.load(path, mmap_mode="r")
            if shard.dtype != self.kind or shard.ndim != 1:
                raise ValueError("it is an array of something else")
        except (OSError, ValueError, EOFError) as error:
            warnings.warn(f"{path} is damaged ({error}); its pictures are decoded again.", stacklevel=4)
            path.unlink()
            return
        for row in shard:
            self.rows[row["digest"].decode()] = row

    def _read_known(self) -> dict[str, list[int | str]]:
        try:
            known = json.loads((self.folder / FILES).read_text(encoding="utf-8"))
            return {str(path): list(about) for path, about in known.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            # Nothing is lost but the time to read the files.
            return {}

    def _check_space(self, count: int) -> None:
        needed = count * self.kind.itemsize
        try:
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise OutputError(f"Cannot use {self.folder}: {reason(error)}.") from error
        if needed > free:
            raise OutputError(
                f"{count} pictures need {needed / 1e9:.2f} GB in {self.folder}, but only {free / 1e9:.2f} GB are free; "
                "free some space or choose another folder."
            )


def _digest_of(file: BinaryIO) -> str:
    """SHA-256 of an open file, hexadecimal."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _check_broken(broken: Mapping[str, str], count: int, most: float) -> None:
    """Raise if too many pictures cannot be read."""
    if len(broken) <= most * count and len(broken) < count:
        return
    reasons = " ".join(list(broken.values())[:_NAMED])
    more = f" And {len(broken) - _NAMED} more." if len(broken) > _NAMED else ""
    many = "None" if len(broken) == count else f"Only {count - len(broken)}"
    advice = "Choose another folder." if len(broken) == count else f"Remove them, or allow more than {most:.0%}."
    raise InputError(f"{many} of {count} pictures can be read. {reasons}{more} {advice}")


class PictureBatches:
    """Batches of real pictures, each a function of the step alone.

    Args:
        data: Pictures; each is used once before any is used again.
        size: Of a batch.
        flip: Turn every other picture, at random, left to right.
        seed: Of the order and the flips.
    """

    def __init__(self, data: Pictures, size: int, *, flip: bool, seed: int) -> None:
        self.data, self.size, self.flip, self.seed = data, size, flip, seed
        self._orders: dict[int, list[int]] = {}

    def __call__(self, step: int) -> Tensor:
        """Images `[B, 3, R, R]` in [-1, 1] of a step."""
        batch = self.data.batch([self._index(step * self.size + k) for k in range(self.size)])
        if not self.flip:
            return batch
        source = torch.Generator().manual_seed(mixed(self.seed, "flips", step))
        turned = torch.rand(self.size, 1, 1, 1, generator=source) < 0.5
        return torch.where(turned, batch.flip(-1), batch)

    def _index(self, position: int) -> int:
        count = len(self.data)
        epoch = position // count
        if epoch not in self._orders:
            source = torch.Generator().manual_seed(mixed(self.seed, "order", epoch))
            # A batch may reach into the next epoch, never back into the last but one.
            self._orders = {k: v for k, v in self._orders.items() if k >= epoch - 1}
            self._orders[epoch] = torch.randperm(count, generator=source).tolist()
        return self._orders[epoch][position % count]

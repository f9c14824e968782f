"""What is kept of the feature vectors of a set of pictures, batch after batch, and its file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .. import images
from .._errors import CheckpointError, InputError
from .._files import atomic_write
from ..weights import read_safetensors
from .features import AbstractExtractor

KIND = "saminv feature statistics"
BATCH = 16


class FeatureStatistics:
    """Number, mean and covariance of feature vectors in float64; on request the vectors themselves.

    Statistics are updated by batches and merged by the pairwise formula, so that neither order nor size of batches
    changes more than the last digits.

    Args:
        extractor: What makes the vectors.
        keep: Whether to keep the vectors (float32), which KID needs: 8 KB for each picture and 2,048 features.

    Attributes:
        count: Number of pictures.
        mean: Mean vector `[D]`.
        scatter: Sum of outer products of deviations from the mean `[D, D]`.

    Reference:
        T. Chan, G. Golub, R. LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances",
        1979.
    """

    def __init__(self, extractor: AbstractExtractor, keep: bool = False) -> None:
        self.extractor = extractor
        self.count = 0
        self.mean = torch.zeros(extractor.length, dtype=torch.float64)
        self.scatter = torch.zeros(extractor.length, extractor.length, dtype=torch.float64)
        self._kept: list[Tensor] | None = [] if keep else None

    @property
    def keeps(self) -> bool:
        """Whether the vectors are kept."""
        return self._kept is not None

    def update(self, pictures: Tensor) -> FeatureStatistics:
        """Add pictures `[B, 3, H, W]` in [-1, 1]; returns these statistics.

        Raises:
            InputError: If these are no pictures.
        """
        return self.add(self.extractor(pictures))

    def add(self, vectors: Tensor) -> FeatureStatistics:
        """Add feature vectors `[B, D]` that the extractor made; returns these statistics.

        Raises:
            InputError: If the vectors have another length, or hold values that are not finite.
        """
        if vectors.dim() != 2 or vectors.shape[1] != len(self.mean):
            raise InputError(f"The vectors are {list(vectors.shape)}; [B, {len(self.mean)}] is needed.")
        if not bool(torch.isfinite(vectors).all()):
            raise InputError("The feature vectors hold values that are NaN or infinite; check the weights.")
        found = vectors.detach().to("cpu", torch.float64)
        if len(found):
            mean = found.mean(dim=0)
            self._join(len(found), mean, (found - mean).t() @ (found - mean))
            if self._kept is not None:
                self._kept.append(found.float())
        return self

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """New statistics of the pictures of both.

        Raises:
            InputError: If they are of different extractors, or one kept its vectors and the other did not.
        """
        self.check_comparable(other)
        if self.keeps != other.keeps:
            raise InputError("One of the statistics kept its vectors and the other did not; make both with keep=True.")
        merged = FeatureStatistics(self.extractor, keep=self.keeps)
        for part in (self, other):
            merged._join(part.count, part.mean, part.scatter)
            if merged._kept is not None:
                merged._kept += part._kept or []
        return merged

    def check_comparable(self, other: FeatureStatistics) -> None:
        """Refuse statistics of another extractor.

        Raises:
            InputError: If networks, weights or rules of resizing differ.
        """
        ours, theirs = self.extractor, other.extractor
        if ours is not theirs and ours.fingerprint() != theirs.fingerprint():
            raise InputError(
                f"These statistics do not compare: one is of {ours.what}, the other of {theirs.what}. Use one "
                "extractor, with the same weights and the same resizing, for both sets."
            )

    def covariance(self) -> Tensor:
        """Covariance `[D, D]`, divided by the number of pictures minus one.

        Raises:
            InputError: If there are fewer than two pictures.
        """
        if self.count < 2:
            raise InputError(f"A covariance needs at least 2 pictures; there are {self.count}. Add more by update().")
        return self.scatter / (self.count - 1)

    def vectors(self) -> Tensor:
        """The vectors `[N, D]`, float32.

        Raises:
            InputError: If they were not kept.
        """
        if self._kept is None:
            raise InputError("These statistics did not keep the vectors; make them with keep=True.")
        return torch.cat([self.mean.new_zeros(0, len(self.mean)).float(), *self._kept])

    def save(self, path: str | os.PathLike[str], source: str = "") -> Path:
        """Write a safetensors file, whole or not at all; ``source`` says what it was made of. Returns the path.

        Raises:
            OutputError: If the file cannot be written.
        """
        from safetensors.torch import save

        tensors = {"mean": self.mean, "scatter": self.scatter}
        if self.keeps:
            tensors["vectors"] = self.vectors()
        metadata = {
            "kind": KIND,
            "count": str(self.count),
            "extractor": self.extractor.what,
            "fingerprint": self.extractor.fingerprint(),
            "source": source,
        }
        with atomic_write(path) as temporary:
            temporary.write_bytes(save(tensors, metadata))
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], extractor: AbstractExtractor) -> FeatureStatistics:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: If the file is missing, damaged, or no statistics.
            InputError: If it was made by another extractor.
        """
        return _read(Path(path), extractor)[0]

    def _join(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.count + count
        if not total:
            return
        gap = mean - self.mean
        self.scatter = self.scatter + scatter + torch.outer(gap, gap) * (self.count * count / total)
        self.mean = self.mean + gap * (count / total)
        self.count = total


def statistics_of_files(
    files: Sequence[str | os.PathLike[str]],
    extractor: AbstractExtractor,
    *,
    keep: bool = False,
    cache: str | os.PathLike[str] | None = None,
) -> FeatureStatistics:
    """Statistics of pictures in files, such as those of a data set.

    Each picture is resized by the extractor from its own size; pictures of one size share a batch.

    Args:
        files: Paths of pictures.
        extractor: What makes the vectors.
        keep: Whether to keep the vectors, which KID needs.
        cache: File for the result. If it holds that of the same files (by path, length and time of change), extractor
            and ``keep``, it is read instead; else it is replaced.

    Raises:
        InputError: If there are no files.
        ImageError: If a picture cannot be read.
        OutputError: If the cache cannot be written.
    """
    if not files:
        raise InputError("There are no pictures; name at least one file.")
    source = _signature(files)
    known = None if cache is None else _cached(Path(cache), extractor, source, keep)
    if known is not None:
        return known
    found = FeatureStatistics(extractor, keep=keep)
    for batch in _batches(files):
        found.update(batch)
    if cache is not None:
        found.save(cache, source)
    return found


def _cached(path: Path, extractor: AbstractExtractor, source: str, keep: bool) -> FeatureStatistics | None:
    """Statistics in a file if they are the ones that are needed."""
    if not path.exists():
        return None
    try:
        found, metadata = _read(path, extractor)
    except (CheckpointError, InputError):
        return None
    return found if metadata.get("source") == source and found.keeps == keep else None


def _read(path: Path, extractor: AbstractExtractor) -> tuple[FeatureStatistics, dict[str, str]]:
    try:
        tensors, metadata = read_safetensors(path.read_bytes(), str(path))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    count = metadata.get("count", "")
    if metadata.get("kind") != KIND or not count.isdecimal():
        raise CheckpointError(f"{path} holds no statistics of features; make them with FeatureStatistics.save.")
    if metadata.get("fingerprint") != extractor.fingerprint():
        raise InputError(
            f"{path} holds statistics of {metadata.get('extractor')}, and this extractor is {extractor.what}. Use the "
            "one that made them, with the same weights and the same resizing, or make them anew."
        )
    found = FeatureStatistics(extractor, keep="vectors" in tensors)
    size = len(found.mean)
    shapes = {"mean": (size,), "scatter": (size, size), **({"vectors": (int(count), size)} if found.keeps else {})}
    for name, shape in shapes.items():
        if name not in tensors or tuple(tensors[name].shape) != shape or not bool(torch.isfinite(tensors[name]).all()):
            raise CheckpointError(f"{path} is damaged: it has no finite {name!r} of the shape {list(shape)}.")
    found._join(int(count), tensors["mean"].double(), tensors["scatter"].double())
    if found._kept is not None:
        found._kept.append(tensors["vectors"].float())
    return found, metadata


def _signature(files: Sequence[str | os.PathLike[str]]) -> str:
    """SHA-256 over path, length and time of change of files."""
    digest = hashlib.sha256()
    for file in files:
        path = Path(file).resolve()
        try:
            state = path.stat()
        except OSError as error:
            raise InputError(f"There is no picture {path} ({error.strerror}).") from error
        digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _batches(files: Sequence[str | os.PathLike[str]]) -> Iterator[Tensor]:
    """Pictures in order, those of one size that follow each other together."""
    waiting: list[Tensor] = []
    for file in files:
        picture = images.load(file).tensor
        if waiting and (len(waiting) == BATCH or picture.shape != waiting[0].shape):
            yield torch.cat(waiting)
            waiting = []
        waiting.append(picture)
    yield torch.cat(waiting)

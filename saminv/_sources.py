"""Which pictures a run or a training is about, and what each is called."""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ._errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".jp2", ".avif")
"""Files in a folder that count as pictures; a file that is named itself is always taken."""


@dataclass(frozen=True)
class Item:
    """One picture: ``name`` is that of its results, unique in the run, and may contain folders ("cats/tom")."""

    name: str
    path: Path


def collect(
    sources: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] | None = None,
    known: Mapping[str, str] | None = None,
    limit: int | None = None,
    shuffle_seed: int | None = None,
) -> list[Item]:
    """Find the pictures of files and folders, searched with all folders below them.

    A picture of a folder is named by its path below that folder, a file by its own name, both without suffix. Names
    that would be the same get a part of a hash of the path. Links are followed, and every file is taken once, so loops
    of links end. Hidden files and folders are left out.

    Args:
        sources: Files and folders.
        out: Folder of results; what lies in it is no source.
        known: Names that were given before, by resolved path; they stay.
        limit: Number of pictures to take; the first in natural order, or of a random order.
        shuffle_seed: Puts them into a random order first.

    Raises:
        InputError: If a source does not exist, a folder has no pictures, or the limit is no number from 1 up.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise InputError(f"limit must be a whole number from 1 up, got {limit!r}.")
    if isinstance(sources, (str, os.PathLike)):
        sources = [sources]
    if not sources:
        raise InputError("There are no pictures: name at least one file or folder.")
    barred = None if out is None else Path(out).resolve()
    found: dict[Path, str] = {}
    for source in map(Path, sources):
        for resolved, name in sorted(_pictures(source, barred), key=lambda pair: natural(pair[1])):
            found.setdefault(resolved, name)
    items = [Item(name, path) for path, name in _unique(found, known or {}).items()]
    if shuffle_seed is not None:
        random.Random(shuffle_seed).shuffle(items)
    return items[:limit]


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sorting key under which "frame10" comes after "frame9"."""
    parts = re.split(r"(\d+)", text.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _pictures(source: Path, barred: Path | None) -> list[tuple[Path, str]]:
    """Resolved paths and names of a file, or of the pictures in a folder."""
    if source.is_dir():
        found = [(path.resolve(), _below(path, source)) for path in _walk(source, barred)]
        if not found:
            raise InputError(f"The folder {source} has no pictures ({', '.join(SUFFIXES)}).")
        return found
    if not os.path.lexists(source):
        raise InputError(f"There is no picture or folder {source}.")
    return [(source.resolve() if source.exists() else source.absolute(), source.stem)]


def _walk(root: Path, barred: Path | None) -> Iterator[Path]:
    seen: set[Path] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        here = Path(folder).resolve()
        # A folder that was met before is a loop of links, or the same pictures once more.
        if here in seen or here == barred:
            folders.clear()
            continue
        seen.add(here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(folder) / name


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).with_suffix("").as_posix()


def _unique(found: Mapping[Path, str], known: Mapping[str, str]) -> dict[Path, str]:
    """Names by path, made different where they collide, also on file systems that ignore case."""
    names = {path: known.get(str(path), name) for path, name in found.items()}
    counts = Counter(name.casefold() for name in names.values())
    taken = {name.casefold() for name in known.values()}
    unique = {}
    for path, name in names.items():
        fresh = str(path) not in known
        if fresh and (counts[name.casefold()] > 1 or name.casefold() in taken):
            name = f"{name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        unique[path] = name
    return unique

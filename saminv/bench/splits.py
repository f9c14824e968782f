"""Lists of the pictures of a training and of a test, and whether they overlap: by name and by content."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from .._errors import InputError
from .._sources import collect
from ..runs.stream import file_hash

DIGEST = re.compile(r"([0-9a-fA-F]{64})\s+\*?(.+)")
"""A line as ``sha256sum`` writes it."""
LARGEST_LIST = 1 << 28
"""Bytes of a list at most; a longer file is something else."""


@dataclass(frozen=True)
class Entry:
    """One picture of a list.

    Attributes:
        path: Of its file, which need not be there.
        sha256: As the list says it; None if it does not.
    """

    path: Path
    sha256: str | None = None

    @property
    def name(self) -> str:
        """By which it is found in another list: that of its file without suffix, in lower case."""
        return self.path.stem.casefold()


@dataclass(frozen=True)
class Split:
    """Two lists that do not overlap.

    Attributes:
        training, test: How many pictures each has.
        unread: Pictures whose content is not known: neither their file nor its hash is here.
        same_names: Whether names were left out of the comparison.
    """

    training: int
    test: int
    unread: int
    same_names: bool

    def __str__(self) -> str:
        compared = "contents" if self.same_names else "names and contents"
        known = f"; the contents of {self.unread} are not here and were not compared" if self.unread else ""
        return f"{self.training} pictures of training and {self.test} of test share no {compared}{known}."


def read_list(source: str | Path) -> list[Entry]:
    """The pictures of a folder, or those that a text file names.

    A file has a path in each line, below the file's own folder, or a SHA-256 before it, as ``sha256sum`` writes them;
    lines that begin with ``#`` say nothing.

    Raises:
        InputError: If there is no such file or folder, or it names no picture.
    """
    place = Path(source)
    if place.is_dir():
        return [Entry(item.path) for item in collect([place])]
    try:
        if place.stat().st_size > LARGEST_LIST:
            raise InputError(f"{place} is no list of pictures: it has {place.stat().st_size} bytes.")
        lines = [line.strip() for line in place.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(
            f"{place} is no list of pictures: {error}. It is a folder, or a text file of paths."
        ) from error
    found = [_entry(line, place.parent) for line in lines if line and not line.startswith("#")]
    if not found:
        raise InputError(f"{place} names no picture; a list has a path in each line.")
    return found


def _entry(line: str, folder: Path) -> Entry:
    digest = DIGEST.fullmatch(line)
    return Entry(folder / line) if digest is None else Entry(folder / digest[2], digest[1].lower())


def check_split(
    training: Sequence[Entry], test: Sequence[Entry], same_names: bool = False, progress: bool = False
) -> Split:
    """Make sure that no picture of a test was in the training.

    Args:
        training, test: The lists.
        same_names: Whether two data sets may have files of one name that show different pictures.
        progress: Show a bar over the files that are read.

    Raises:
        InputError: If a name or a content is in both; the message shows an example.
    """
    if not same_names:
        names = {entry.name: entry for entry in training}
        shared = [(names[entry.name], entry) for entry in test if entry.name in names]
        if shared:
            raise InputError(
                f"Training and test share {len(shared)} names, for example {_example(shared)}. Take them out of one "
                "list; if these are different data sets whose files are merely called alike, say --same-names."
            )
    contents = [_contents(one, other, progress) for one, other in ((training, test), (test, training))]
    same = [(contents[0][digest], entry) for digest, entry in contents[1].items() if digest in contents[0]]
    if same:
        raise InputError(
            f"Training and test share {len(same)} pictures under other names: {_example(same)} have the same content. "
            "Take them out of one list."
        )
    unread = sum(entry.sha256 is None and not entry.path.is_file() for entry in (*training, *test))
    return Split(len(training), len(test), unread, same_names)


def check_within(pictures: Iterable[Path], test: Sequence[Entry]) -> None:
    """Make sure that all pictures are in the list of a test, by their names.

    Raises:
        InputError: If one is not.
    """
    names = {entry.name for entry in test}
    missing = [path for path in pictures if path.stem.casefold() not in names]
    if missing:
        raise InputError(f"{len(missing)} of the pictures are not in the list of the test, for example {missing[0]}.")


def _contents(entries: Sequence[Entry], others: Sequence[Entry], progress: bool) -> dict[str, Entry]:
    """Pictures by the hash of their content; files of a length that the others do not have are not read."""
    sizes = None if any(entry.sha256 for entry in others) else {_size(entry) for entry in others}
    found, todo = {}, []
    for entry in entries:
        if entry.sha256:
            found[entry.sha256] = entry
        elif _comparable(entry, sizes):
            todo.append(entry)
    for entry in tqdm(todo, unit="file", desc="comparing", disable=not progress):
        try:
            found[file_hash(entry.path)] = entry
        except OSError as error:
            raise InputError(f"{entry.path} cannot be read: {error}.") from error
    return found


def _comparable(entry: Entry, sizes: Collection[int | None] | None) -> bool:
    size = _size(entry)
    return size is not None and (sizes is None or size in sizes)


def _size(entry: Entry) -> int | None:
    """Bytes of a file; None where it is not here."""
    return entry.path.stat().st_size if entry.path.is_file() else None


def _example(pairs: Sequence[tuple[Entry, Entry]]) -> str:
    return " and ".join(str(entry.path) for entry in pairs[0])

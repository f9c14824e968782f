"""Named networks on this machine: fetched when they are first wanted, pinned then, checked ever after."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .._errors import CheckpointError, InputError, OutputError, WeightsError
from .._files import atomic_write, ensure_folder
from ._fetch import fetch, file_digest, is_page, weights_folder
from ._pins import Pin, change_pin, read_pins, today
from .networks import NETWORKS, Network


def fetch_network(
    name: str,
    *,
    to: str | Path | None = None,
    given: str | Path | None = None,
    accept: bool = False,
    progress: bool = True,
) -> Path:
    """Return where a named network is on this machine, and fetch it if it is not there.

    At the first use the SHA-256 of its files is written to ``networks.lock`` in :func:`weights_folder`. Every later use
    is checked against that.

    Args:
        name: One of :data:`NETWORKS`.
        to: File, or folder of a network of several files, to fetch it to, instead of the folder of weights.
        given: File or folder where it is already, in any form that :func:`saminv.load_generator` reads.
        accept: Whether to take files of another SHA-256 than before.
        progress: Whether a fetch shows a progress bar.

    Returns:
        Its file, or the folder of its files.

    Raises:
        InputError: For an unknown name, or a place that is taken.
        WeightsError: If it could not be fetched, or is not where it was said to be; says where to put it.
        CheckpointError: If a file is too short, a web page, or another one than at the first use.
        OutputError: If the place cannot be written.
    """
    network, pin = NETWORKS.get(name), read_pins().get(name)
    usual = _usual(name, network)
    here = usual if pin is None else replace(usual, path=pin.path)
    known = {} if pin is None or accept else pin.sha256
    if given is not None:
        if to is not None:
            raise InputError("A network is either fetched to a place (to) or taken from one (given), not both.")
        here = _given(usual, Path(given))
    elif to is not None:
        target = _free(usual, Path(to))
        if here.is_there:
            _settle(here, accept)
            here.copy_to(target)
        else:
            target.bring(known, progress)
        here = target
    elif here == usual:
        here.bring(known, progress)
    elif not here.is_there:
        raise WeightsError(
            f"{name} was at {here.path}, and is not there any more. Put it back, say where it is (saminv fetch {name} "
            f"--from FILE), or have it fetched to another place (saminv fetch {name} --to FILE)."
        )
    _settle(here, accept)
    return here.path


def network_place(name: str) -> Path | None:
    """Where a named network is on this machine; None if it is not. Nothing is fetched or checked."""
    here, pin = _usual(name, NETWORKS.get(name)), read_pins().get(name)
    here = here if pin is None else replace(here, path=pin.path)
    return here.path if here.is_there else None


@dataclass(frozen=True)
class _Place:
    """Where a network is or should be: its file, or the folder of its files."""

    name: str
    network: Network
    path: Path

    @property
    def members(self) -> dict[str, Path]:
        """Its files by their published names. One file in place of a folder is the network in another form."""
        files = self.network.files
        if len(files) == 1 or self.path.is_file():
            return {files[0].name if len(files) == 1 else self.path.name: self.path}
        return {file.name: self.path / file.name for file in files}

    @property
    def is_there(self) -> bool:
        return all(path.is_file() for path in self.members.values())

    def bring(self, known: Mapping[str, str], progress: bool) -> None:
        """Fetch the files that are not there; ``known`` are the checksums of the first use."""
        otherwise = f"or say where it is: saminv fetch {self.name} --from FILE."
        if known:
            otherwise += f" To take files of another SHA-256 than at the first use: saminv fetch {self.name} --accept"
        for file in self.network.files:
            path = self.members.get(file.name)
            if path is not None and not path.is_file():
                fetch(
                    file.url,
                    path,
                    sha256=known.get(file.name, file.sha256),
                    minimal_size=file.minimal_size,
                    progress=progress,
                    otherwise=otherwise,
                )

    def copy_to(self, other: _Place) -> None:
        """Copy the files to a place that is free."""
        for name, source in self.members.items():
            target = other.path if self.path.is_file() else other.path / name
            ensure_folder(target.parent)
            with atomic_write(target) as temporary:
                shutil.copyfile(source, temporary)

    def check(self) -> None:
        """Refuse files that cannot be what they should be, whatever their checksums."""
        published = {file.name: file for file in self.network.files}
        for name, path in self.members.items():
            with open(path, "rb") as handle:
                head = handle.read(1 << 10)
            if not head or is_page(head):
                what = "a web page" if head else "empty"
                raise CheckpointError(f"{path} is {what}, and no network. Delete it and get it again.")
            # Another form, which somebody has given, may be smaller.
            least = published[name].minimal_size if path.suffix == Path(name).suffix and name in published else 0
            if path.stat().st_size < least:
                raise CheckpointError(
                    f"{path} has {path.stat().st_size} bytes; the whole file has at least {least}. Delete it and get "
                    f"it again from {published[name].url}"
                )


def _usual(name: str, network: Network) -> _Place:
    """The place of a network in the folder of weights."""
    folder = weights_folder() / name
    return _Place(name, network, folder if len(network.files) > 1 else folder / network.files[0].name)


def _given(usual: _Place, given: Path) -> _Place:
    path, files = given.expanduser().absolute(), usual.network.files
    place = replace(usual, path=path / files[0].name if len(files) == 1 and path.is_dir() else path)
    if not place.is_there:
        names = " and ".join(file.name for file in files)
        raise WeightsError(f"There is no network at {path}. Needed is its file, or a folder that holds {names}.")
    return place


def _free(usual: _Place, to: Path) -> _Place:
    path = to.expanduser().absolute()
    path = path / usual.path.name if path.is_dir() else path
    if path.exists():
        raise InputError(
            f"{path} is there already. Name another place, or take what is there: saminv fetch {usual.name} --from "
            f"{path}"
        )
    return replace(usual, path=path)


def _settle(here: _Place, accept: bool) -> None:
    """Make sure that the files are those of the first use, or pin them if this is the first."""
    here.check()
    found = {name: file_digest(path) for name, path in here.members.items()}

    def change(pin: Pin | None) -> Pin:
        same = pin is not None and pin.sha256 == found
        if not (same or accept):
            _compare(here, found, pin)
        return Pin(here.path, found, pin.since if pin is not None and same else today())

    pin = read_pins().get(here.name)
    if pin is None or change(pin) != pin:
        try:
            change_pin(here.name, change)
        except OutputError as error:
            warnings.warn(f"{here.name} is used without being pinned. {error}", stacklevel=2)


def _compare(here: _Place, found: Mapping[str, str], pin: Pin | None) -> None:
    """Refuse files that are others than at the first use or, at the first use, than published."""
    if pin is not None:
        expected, what = pin.sha256, f"what it was at its first use here, on {pin.since}"
    elif here == _usual(here.name, here.network):
        expected = {file.name: file.sha256 for file in here.network.files if file.sha256}
        what = "what its publisher describes"
    else:
        # Whoever names a place may have the network there in another form.
        return
    names = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
    names = [name for name in names if pin is not None or name in expected]
    if not names:
        return
    is_now, was = (", ".join(f"{table.get(name, 'none')} ({name})" for name in names) for table in (found, expected))
    moved = "" if here == _usual(here.name, here.network) else f" --from {here.path}"
    raise CheckpointError(
        f"{here.name} at {here.path} is not {what}. SHA-256 found: {is_now}; expected: {was}. If you trust it, accept "
        f"it: saminv fetch {here.name}{moved} --accept. Otherwise delete it and get it again from "
        f"{here.network.files[0].url}"
    )

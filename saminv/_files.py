"""Writing files so that a failure leaves nothing half-written, and says what is wrong before long work begins."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from ._errors import OutputError

LITTER = ".saminv-"
"""Beginning of the names of unfinished files."""
PAUSE = 0.1
"""Seconds between two tries to take a lock that somebody else holds."""

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "your disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "the file would be larger than this system allows; choose another folder or a smaller picture",
    errno.EACCES: "you may not write there; choose another folder or change its permissions",
    errno.EPERM: "you may not write there; choose another folder or change its permissions",
    errno.EROFS: "that file system is read-only; choose another folder",
    errno.ENOENT: "the folder does not exist; create it first",
    errno.ENOTDIR: "a part of the path is a file where a folder is needed; choose another path",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; replace ``path`` by it on success, remove it on any error.

    The temporary file has the suffix of ``path``, since some writers choose the format by it. Readers see either the
    old file or the whole new one. An existing symbolic link is followed.

    Raises:
        OutputError: If the folder is missing or not writable, the disk is full, or ``path`` is a folder or a device.
    """
    target = _regular_target(path)
    temporary = target.with_name(f"{LITTER}{secrets.token_hex(8)}{target.suffix}")
    try:
        # Not tempfile: its files are private to the user, and os.replace would keep them so.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"Cannot write {os.fspath(path)}: {reason(error)}.") from error
    finally:
        # After os.replace the temporary name is gone already.
        with contextlib.suppress(OSError):
            temporary.unlink()


def ensure_folder(path: str | os.PathLike[str]) -> Path:
    """Create the output folder ``path`` with its parents where absent, and make sure that files can be written in it.

    Raises:
        OutputError: If ``path`` or a parent is a file, or nothing can be written there.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Permission bits do not tell about read-only or full disks: only writing does.
        probe = folder / f"{LITTER}{secrets.token_hex(8)}"
        with contextlib.ExitStack() as stack:
            stack.callback(probe.unlink, missing_ok=True)
            probe.write_bytes(b"\0")
    except FileExistsError as error:
        raise OutputError(f"Cannot use {folder} as output folder: it is a file; choose another path.") from error
    except (OSError, ValueError) as error:
        raise OutputError(f"Cannot use {folder} as output folder: {reason(error)}.") from error
    return folder


def remove_litter(folder: Path) -> None:
    """Remove what killed processes left of unfinished files below a folder that nobody writes into."""
    for path in folder.rglob(f"{LITTER}*"):
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock that other threads and processes respect; it ends with the process, however that ends.

    The file ``path`` is there only while somebody holds or wants the lock. Where the file system knows no locks, or
    nothing can be written, the block runs without one.

    Args:
        path: Of the lock, in a folder that exists.
        waiting: Called once if somebody else holds it.
    """
    file = _hold(Path(path), waiting)
    try:
        yield
    finally:
        if file is not None:
            with contextlib.suppress(OSError):
                os.unlink(path)
            file.close()


def _hold(path: Path, waiting: Callable[[], None]) -> IO[str] | None:
    """The locked file, or None where there can be no lock."""
    told = False
    while True:
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(open(path, "a+", encoding="utf-8"))
                take_lock(file)
                # Whoever held it has removed the file at the end: what counts is the lock on the one of that name now.
                if _is_at(file, path):
                    stack.pop_all()
                    return file
                continue
            except BlockingIOError:
                pass
            except OSError:
                return None
        if not told:
            told = True
            waiting()
        time.sleep(PAUSE)


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file is the one that has this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def take_lock(file: IO[str]) -> None:
    """Lock an open file without waiting; the lock ends when the file is closed. Raises ``BlockingIOError`` if taken."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        # Far behind the end, so that others can still read who holds it.
        file.seek(1 << 20)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except PermissionError as error:
            raise BlockingIOError(error.errno, error.strerror) from error
        return
    fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _regular_target(path: str | os.PathLike[str]) -> Path:
    """Return the file that ``path`` stands for, links followed, after checking that it may be replaced."""
    try:
        target = Path(os.path.realpath(path))
        exists, is_folder, folder_exists = os.path.lexists(target), target.is_dir(), target.parent.is_dir()
    except (OSError, ValueError) as error:
        raise OutputError(f"Cannot write {os.fspath(path)!r}: {reason(error)}.") from error
    if is_folder:
        raise OutputError(f"Cannot write {os.fspath(path)!r}: it is a folder; add a file name.")
    if exists and not target.is_file():
        raise OutputError(f"Cannot write {os.fspath(path)}: it is not a regular file; choose another path.")
    if exists and not os.access(target, os.W_OK):
        raise OutputError(f"Cannot write {os.fspath(path)}: the file there is write-protected; choose another name.")
    if not folder_exists:
        raise OutputError(f"Cannot write {os.fspath(path)}: there is no folder {target.parent}; create it first.")
    return target


def _flush(path: Path) -> None:
    """Force the file to the disk: some file systems report a full disk only then."""
    # Opened for reading and writing, since Windows refuses to flush a file that is only read.
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reason(error: Exception) -> str:
    """What went wrong with a file and what to do, as a clause."""
    code = error.errno if isinstance(error, OSError) else None
    if code in _REASONS:
        return _REASONS[code]
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")

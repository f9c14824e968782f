"""Atomic writing and output folders: whole or not at all, with an error that says why."""

from __future__ import annotations

import errno
import multiprocessing
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from saminv import _files
from saminv._errors import OutputError
from saminv._files import atomic_write, ensure_folder, locked


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_writes_the_whole_file_and_nothing_else(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.json") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".json"
        temporary.write_text("new")
        assert not (tmp_path / "a.json").exists()
    assert names(tmp_path) == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "new"


def test_replaces_an_existing_file_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with atomic_write(str(target)) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_no_litter(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(type(error)), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise error
    assert names(tmp_path) == ["a.txt"]
    assert target.read_text() == "old"


@pytest.mark.parametrize(
    ("code", "text"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "may not write"), (errno.EIO, "error")],
)
def test_system_errors_become_output_errors(tmp_path: Path, code: int, text: str) -> None:
    with pytest.raises(OutputError, match=text) as caught, atomic_write(tmp_path / "a.txt"):
        raise OSError(code, os.strerror(code))
    assert "a.txt" in str(caught.value)
    assert names(tmp_path) == []


def test_an_output_error_from_the_body_is_kept(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^own words$"), atomic_write(tmp_path / "a.txt"):
        raise OutputError("own words")
    assert names(tmp_path) == []


def test_a_write_cut_off_by_the_system_leaves_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="file size limits exist on POSIX only")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OutputError, match="larger than"), atomic_write(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == []


def test_a_writer_that_leaves_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError), atomic_write(tmp_path / "a.txt") as temporary:
        temporary.unlink()
    assert names(tmp_path) == []


@pytest.mark.parametrize("where", ["missing/a.txt", "", "file.txt/a.txt", "x" * 300, "nul\0byte"])
def test_impossible_places(tmp_path: Path, where: str) -> None:
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(OutputError), atomic_write(os.path.join(tmp_path, where)):
        pytest.fail("the body must not run")
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names exist on POSIX only")
def test_a_device_or_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="not a regular file"), atomic_write(tmp_path / "pipe"):
        pytest.fail("the body must not run")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_protected_file_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.txt"
    target.write_text("keep")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="write-protected"), atomic_write(target):
        pytest.fail("the body must not run")
    assert target.read_text() == "keep"


def test_a_link_is_followed(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "a.txt").write_text("old")
    link = tmp_path / "link.txt"
    try:
        link.symlink_to(real / "a.txt")
    except OSError:
        pytest.skip("this system does not allow symbolic links")
    with atomic_write(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert (real / "a.txt").read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="permission bits are a POSIX matter")
def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_text("")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


def test_a_bare_name_is_written_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with atomic_write("a.txt") as temporary:
        temporary.write_text("here")
    assert names(tmp_path) == ["a.txt"]


def test_ensure_folder_creates_parents_and_accepts_existing_ones(tmp_path: Path) -> None:
    folder = ensure_folder(str(tmp_path / "a" / "b"))
    assert folder == tmp_path / "a" / "b"
    assert ensure_folder(folder).is_dir()
    assert names(folder) == []


@pytest.mark.parametrize("where", ["file.txt", "file.txt/sub", "nul\0byte", "x" * 300])
def test_ensure_folder_refuses(tmp_path: Path, where: str) -> None:
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(OutputError, match="output folder"):
        ensure_folder(os.path.join(tmp_path, where))


def test_ensure_folder_notices_that_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="disk is full"):
        ensure_folder(tmp_path)
    assert names(tmp_path) == []


def count_up(path: Path, times: int, waiting: Callable[[], None] = lambda: None) -> None:
    """Read a number and write the next one, a few times, each time under a lock."""
    for _ in range(times):
        with locked(path.with_suffix(".lock"), waiting):
            number = int(path.read_text())
            time.sleep(0.001)
            path.write_text(str(number + 1))


def test_a_lock_keeps_processes_and_threads_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "PAUSE", 0.001)
    path = tmp_path / "number.txt"
    path.write_text("0")
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=count_up, args=(path, 20)) for _ in range(2)]
    for worker in workers:
        worker.start()
    workers += [threading.Thread(target=count_up, args=(path, 20)) for _ in range(2)]
    for worker in workers[2:]:
        worker.start()
    for worker in workers:
        worker.join()
    assert path.read_text() == "80"
    assert names(tmp_path) == ["number.txt"]


def test_who_wants_a_lock_is_told_once_that_it_is_taken(tmp_path: Path) -> None:
    told: list[bool] = []
    (tmp_path / "number.txt").write_text("0")
    with locked(tmp_path / "number.lock"):
        waiter = threading.Thread(target=count_up, args=(tmp_path / "number.txt", 1, lambda: told.append(True)))
        waiter.start()
        waiter.join(3 * _files.PAUSE)
        assert waiter.is_alive() and told == [True]
        assert (tmp_path / "number.txt").read_text() == "0"
    waiter.join()
    assert told == [True] and (tmp_path / "number.txt").read_text() == "1"


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    def die() -> None:
        with locked(tmp_path / "lock"):
            os._exit(1)

    worker = multiprocessing.get_context("fork").Process(target=die)
    worker.start()
    worker.join()
    assert names(tmp_path) == ["lock"]
    with locked(tmp_path / "lock", lambda: pytest.fail("nobody holds it")):
        pass
    assert names(tmp_path) == []


def test_without_a_place_for_the_lock_there_is_none(tmp_path: Path) -> None:
    with locked(tmp_path / "absent" / "lock"):
        assert names(tmp_path) == []


def test_an_error_lets_the_lock_go(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path / "lock"):
        raise RuntimeError
    assert names(tmp_path) == []

"""Fetching a weight file: resumed where possible, checked always, moved into place only when whole."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from .._errors import CheckpointError, InputError, OutputError, WeightsError

FOLDER_VARIABLE = "SAMINV_WEIGHTS"
CHUNK = 1 << 20
RETRIED = {408, 425, 429, 500, 502, 503, 504}
"""HTTP statuses that may pass by themselves."""


class _Temporary(Exception):
    """The transfer failed in a way that another attempt may mend."""


class _Final(Exception):
    """The transfer failed for good."""


@dataclass(frozen=True)
class _Job:
    url: str
    destination: Path
    sha256: str | None
    minimal_size: int
    progress: bool
    timeout: float

    @property
    def part(self) -> Path:
        """What has arrived so far."""
        return self.destination.with_name(self.destination.name + ".part")

    @property
    def tag(self) -> Path:
        """The server's mark of the version that ``part`` belongs to."""
        return self.destination.with_name(self.destination.name + ".part.tag")

    def discard(self) -> None:
        """Forget what has arrived so far."""
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)


def weights_folder() -> Path:
    """Folder of fetched weights: ``$SAMINV_WEIGHTS``, else ``$XDG_CACHE_HOME/saminv``, else ``~/.cache/saminv``."""
    if os.environ.get(FOLDER_VARIABLE):
        return Path(os.environ[FOLDER_VARIABLE]).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "saminv"


def obtain(
    url: str, *, sha256: str | None, minimal_size: int, given: str | Path | None = None, progress: bool = True
) -> Path:
    """Return the path of a weight file: the given one, the one in :func:`weights_folder`, or a fetched one.

    Args:
        url: Where the file comes from; its last part is the file's name.
        sha256: As for :func:`fetch`.
        minimal_size: As for :func:`fetch`.
        given: File, or folder that holds it. If given, nothing else is tried.
        progress: Whether a fetch shows a progress bar.

    Raises:
        WeightsError: If the given file does not exist, or nothing could be fetched.
        CheckpointError: If the file in the folder is too small to be whole.
    """
    name = Path(unquote(urlsplit(url).path)).name
    if given is not None:
        path = Path(given).expanduser()
        path = path / name if path.is_dir() else path
        if not path.is_file():
            raise WeightsError(f"There is no file {path}. It can be had from {url}")
        return path
    path = weights_folder() / name
    if not path.is_file():
        return fetch(url, path, sha256=sha256, minimal_size=minimal_size, progress=progress)
    # Only the size: the checksum was verified on arrival, and reading half a gigabyte at every start is slow.
    if path.stat().st_size < minimal_size:
        raise CheckpointError(
            f"{path} has {path.stat().st_size} bytes; the whole file has at least {minimal_size}. "
            f"Delete it, and it will be fetched again from {url}"
        )
    return path


def fetch(
    url: str,
    destination: str | Path,
    *,
    sha256: str | None,
    minimal_size: int = 1,
    progress: bool = True,
    attempts: int = 3,
    timeout: float = 30.0,
    pause: float = 1.0,
) -> Path:
    """Fetch a file by HTTP(S) unless it is there and right, and return its path.

    What has arrived of an interrupted transfer is kept as ``<destination>.part`` and continued by the next call. The
    destination only ever holds a whole, checked file.

    Args:
        url: Address; redirects are followed, but never from https to http.
        destination: Path of the file; its folder is made.
        sha256: SHA-256 in hexadecimal, or at least its first eight digits. None skips this check.
        minimal_size: Bytes that the whole file has at least.
        progress: Whether to show a progress bar, on a terminal only.
        attempts: Tries before giving up on failures that may pass.
        timeout: Seconds without an answer after which an attempt has failed.
        pause: Seconds before the second attempt, doubled for each one after.

    Raises:
        InputError: If the address is not http(s), or the checksum is none.
        WeightsError: If the file could not be had or is not the expected one; names the address, the path where to put
            the file by hand, and the other ways.
        OutputError: If the file cannot be written.
    """
    job = _Job(url, Path(destination).expanduser(), _checked_digest(sha256), minimal_size, progress, timeout)
    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"Cannot fetch {url!r}: the address must begin with http:// or https://.")
    if job.destination.is_file() and _flaw(job.destination, job) is None:
        return job.destination
    try:
        job.destination.parent.mkdir(parents=True, exist_ok=True)
        return _with_retries(job, attempts, pause)
    except (_Final, _Temporary) as error:
        raise WeightsError(_advice(job, str(error))) from error
    except OSError as error:
        raise OutputError(
            f"Cannot write {job.destination}: {error}. Choose another folder by {FOLDER_VARIABLE}."
        ) from error


def _with_retries(job: _Job, attempts: int, pause: float) -> Path:
    for attempt in range(max(attempts, 1)):
        last = attempt + 1 >= attempts
        try:
            resumed = _download(job)
        except _Temporary:
            if last:
                raise
            time.sleep(pause * 2**attempt)
            continue
        flaw = _flaw(job.part, job)
        if flaw is None:
            os.replace(job.part, job.destination)
            job.tag.unlink(missing_ok=True)
            return job.destination
        job.discard()
        # A continued file may have been joined from two versions; a file in one piece is simply the wrong one.
        if last or not resumed:
            raise _Final(flaw)
    raise AssertionError("every attempt returns or raises")


def _download(job: _Job) -> bool:
    """Bring ``job.part`` to its full length; returns whether it was continued from an earlier attempt."""
    offset = job.part.stat().st_size if job.part.is_file() else 0
    tag = job.tag.read_text(encoding="utf-8") if job.tag.is_file() else ""
    if offset and not (tag or job.sha256):
        # Nothing could tell that the rest belongs to the same version.
        offset = 0
    try:
        with urllib.request.urlopen(_request(job.url, offset, tag), timeout=job.timeout) as response:
            return _receive(job, response, offset)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            if error.headers.get("Content-Range") == f"bytes */{offset}":
                # Everything had arrived, but the earlier call ended before the file was moved.
                return True
            job.discard()
            raise _Temporary("the part fetched earlier does not fit the file any more") from error
        reason = f"the server answered {error.code} {error.reason}"
        raise (_Temporary if error.code in RETRIED else _Final)(reason) from error
    except urllib.error.URLError as error:
        raise _Temporary(f"no connection ({error.reason})") from error
    except (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        raise _Temporary(f"the connection broke ({error or type(error).__name__})") from error


def _request(url: str, offset: int, tag: str) -> urllib.request.Request:
    headers = {"User-Agent": "saminv", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if tag:
            headers["If-Range"] = tag
    return urllib.request.Request(url, headers=headers)


def _receive(job: _Job, response: Any, offset: int) -> bool:
    if urlsplit(job.url).scheme == "https" and urlsplit(response.geturl()).scheme != "https":
        raise _Final(f"the server redirects from https to {response.geturl()}")
    if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise _Final(_PAGE)
    total, offset = _lengths(job, response, offset)
    if total is not None and total < job.minimal_size:
        raise _Final(f"the file there has {total} bytes, at least {job.minimal_size} are expected")
    chunk = response.read(CHUNK)
    if offset == 0 and chunk.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        raise _Final(_PAGE)
    _remember_version(job, response)
    size = _write(job, response, chunk, offset, total)
    if total is not None and size < total:
        raise _Temporary(f"the transfer ended after {size} of {total} bytes")
    return offset > 0


_PAGE = "the server sent a web page instead of the file (a login, a licence to accept, or a proxy)"


def _lengths(job: _Job, response: Any, offset: int) -> tuple[int | None, int]:
    """Length of the whole file if known, and where in it the answer begins."""
    if response.status == 206:
        match = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != offset:
            job.discard()
            raise _Temporary("the server answered with another range than asked for")
        return (None if match[2] == "*" else int(match[2])), offset
    length = response.headers.get("Content-Length", "")
    return (int(length) if length.isdigit() else None), 0


def _remember_version(job: _Job, response: Any) -> None:
    tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    # Weak tags mark files of equal meaning, not of equal bytes.
    if tag and not tag.startswith("W/"):
        job.tag.write_text(tag, encoding="utf-8")
    else:
        job.tag.unlink(missing_ok=True)


def _write(job: _Job, response: Any, chunk: bytes, offset: int, total: int | None) -> int:
    """Append the answer, whose first bytes are ``chunk``, to ``job.part`` from ``offset`` on; returns the length."""
    from tqdm import tqdm

    hidden = None if job.progress else True
    bar = tqdm(total=total, initial=offset, unit="B", unit_scale=True, desc=job.destination.name, disable=hidden)
    with bar, open(job.part, "ab" if offset else "wb") as handle:
        while chunk:
            handle.write(chunk)
            bar.update(len(chunk))
            chunk = response.read(CHUNK)
        return handle.tell()


def _flaw(path: Path, job: _Job) -> str | None:
    """What is wrong with a file that should be whole, as a clause; None if nothing is."""
    size = path.stat().st_size
    if size < job.minimal_size:
        return f"the file has {size} bytes, at least {job.minimal_size} are expected"
    if job.sha256 is not None:
        digest = _digest(path)
        if not digest.startswith(job.sha256):
            return f"its SHA-256 is {digest[: len(job.sha256)]}, expected {job.sha256}; it was removed"
    return None


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _checked_digest(sha256: str | None) -> str | None:
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256):
        raise InputError(f"sha256={sha256!r} is none: 8 to 64 hexadecimal digits are needed.")
    return None if sha256 is None else sha256.lower()


def _advice(job: _Job, reason: str) -> str:
    return (
        f"Could not fetch {job.url}: {reason}. Put the file by hand at {job.destination}, or set {FOLDER_VARIABLE} to "
        f"a folder that holds {job.destination.name}, or pass its path (weights=...)."
    )

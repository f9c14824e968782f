"""Fetching a weight file: resumed where possible, checked always, moved into place only when whole."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import os
import re
import ssl
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from .._errors import CheckpointError, InputError, OutputError, WeightsError
from .._files import locked

FOLDER_VARIABLE = "SAMINV_WEIGHTS"
CHUNK = 1 << 20
RETRIED = {408, 425, 429, 500, 502, 503, 504}
"""HTTP statuses that may pass by themselves."""
DRIVE = re.compile(r"https://drive\.google\.com/(?:uc\?(?:\S*&)?id=|open\?id=|file/d/)([\w-]+)")
"""Links to files on Google Drive, as publishers write them."""


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
    otherwise: str

    @property
    def part(self) -> Path:
        """What has arrived so far."""
        return self.destination.with_name(self.destination.name + ".part")

    @property
    def tag(self) -> Path:
        """The server's mark of the version that ``part`` belongs to."""
        return self.destination.with_name(self.destination.name + ".part.tag")

    @property
    def lock(self) -> Path:
        """Held while somebody fetches: two that write into ``part`` would spoil it."""
        return self.destination.with_name(self.destination.name + ".part.lock")

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
    otherwise: str | None = None,
) -> Path:
    """Fetch a file by HTTP(S) unless it is there and right, and return its path.

    What has arrived of an interrupted transfer is kept as ``<destination>.part`` and continued by the next call. The
    destination only ever holds a whole, checked file. Of several processes that want it one fetches it, and the others
    wait.

    Args:
        url: Address; redirects are followed, but never from https to http. A link to Google Drive is taken for the file
            itself, not for the page that warns of large files.
        destination: Path of the file; its folder is made.
        sha256: SHA-256 in hexadecimal, or at least its first eight digits. None skips this check.
        minimal_size: Bytes that the whole file has at least.
        progress: Whether to show a progress bar, on a terminal only.
        attempts: Tries before giving up on failures that may pass.
        timeout: Seconds without an answer after which an attempt has failed.
        pause: Seconds before the second attempt, doubled for each one after.
        otherwise: What to do instead of putting the file by hand, as the end of a sentence.

    Raises:
        InputError: If the address is not http(s), or the checksum is none.
        WeightsError: If the file could not be had or is not the expected one; names the address, the path where to put
            the file by hand, and the other ways.
        OutputError: If the file cannot be written.
    """
    path = Path(destination).expanduser()
    if otherwise is None:
        otherwise = f"or set {FOLDER_VARIABLE} to a folder that holds {path.name}, or pass its path (weights=...)."
    job = _Job(url, path, _checked_digest(sha256), minimal_size, progress, timeout, otherwise)
    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"Cannot fetch {url!r}: the address must begin with http:// or https://.")
    if _is_done(job):
        return job.destination
    try:
        job.destination.parent.mkdir(parents=True, exist_ok=True)
        with locked(job.lock, lambda: warnings.warn(f"Waiting for another process to fetch {path}.", stacklevel=2)):
            return job.destination if _is_done(job) else _with_retries(job, attempts, pause)
    except (_Final, _Temporary) as error:
        raise WeightsError(_advice(job, str(error))) from error
    except OSError as error:
        raise OutputError(
            f"Cannot write {job.destination}: {error}. Choose another folder by {FOLDER_VARIABLE}."
        ) from error


def _is_done(job: _Job) -> bool:
    return job.destination.is_file() and _flaw(job.destination, job) is None


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
        opener = urllib.request.build_opener(_Redirects)
        with opener.open(_request(_direct(job.url), offset, tag), timeout=job.timeout) as response:
            return _receive(job, response, offset, tag)
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


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects but for those that leave HTTP, or HTTPS for HTTP."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        ours, theirs = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if theirs not in ("http", "https") or (ours == "https" and theirs == "http"):
            fp.close()
            raise _Final(f"the server redirects from {ours} to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _direct(url: str) -> str:
    """The address of the file itself where ``url`` is that of its page on Google Drive."""
    found = DRIVE.match(url)
    if found is None:
        return url
    return f"https://drive.usercontent.google.com/download?id={found[1]}&export=download&confirm=t"


def _request(url: str, offset: int, tag: str) -> urllib.request.Request:
    headers = {"User-Agent": "saminv", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if tag:
            headers["If-Range"] = tag
    return urllib.request.Request(url, headers=headers)


def _receive(job: _Job, response: Any, offset: int, tag: str) -> bool:
    if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise _Final(_PAGE)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _Final(f"the server sent it compressed ({response.headers['Content-Encoding']}), which was not asked for")
    total, offset = _lengths(job, response, offset, tag)
    if total is not None and total < job.minimal_size:
        raise _Final(f"the file there has {total} bytes, at least {job.minimal_size} are expected")
    pieces = _pieces(response, None if total is None else total - offset)
    head = _head(pieces)
    if offset == 0 and is_page(head):
        raise _Final(_PAGE)
    _remember_version(job, response)
    size = _write(job, itertools.chain([head], pieces), offset, total)
    if total is not None and size < total:
        raise _Temporary(f"the transfer ended after {size} of {total} bytes")
    return offset > 0


def _pieces(response: Any, length: int | None) -> Iterator[bytes]:
    """The next ``length`` bytes of an answer, as they arrive: of a transfer that stalls nothing is lost."""
    while length is None or length > 0:
        piece = response.read1(CHUNK if length is None else min(CHUNK, length))
        if not piece:
            return
        length = None if length is None else length - len(piece)
        yield piece


def _head(pieces: Iterator[bytes]) -> bytes:
    """Enough of the beginning to tell what it is."""
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= CHUNK or (len(head) > len(_MARK) and head.removeprefix(_MARK).strip()):
            break
    return head


def is_page(head: bytes) -> bool:
    """Whether a file begins as web pages do, and no weights."""
    return head.removeprefix(_MARK).lstrip().startswith(b"<")


_MARK = b"\xef\xbb\xbf"
_PAGE = "the server sent a web page instead of the file (a login, a licence to accept, or a proxy)"


def _lengths(job: _Job, response: Any, offset: int, tag: str) -> tuple[int | None, int]:
    """Length of the whole file if known, and where in it the answer begins."""
    if response.status == 206:
        match = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != offset:
            job.discard()
            raise _Temporary("the server answered with another range than asked for")
        if tag and _version(response) not in ("", tag):
            job.discard()
            raise _Temporary("the file has changed since its first part was fetched")
        return (None if match[2] == "*" else int(match[2])), offset
    length = response.headers.get("Content-Length", "")
    return (int(length) if length.isdigit() else None), 0


def _version(response: Any) -> str:
    """The server's mark of these very bytes, or an empty string."""
    tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    # Weak tags mark files of equal meaning, not of equal bytes.
    return "" if tag.startswith("W/") else tag


def _remember_version(job: _Job, response: Any) -> None:
    tag = _version(response)
    if tag:
        job.tag.write_text(tag, encoding="utf-8")
    else:
        job.tag.unlink(missing_ok=True)


def _write(job: _Job, pieces: Iterable[bytes], offset: int, total: int | None) -> int:
    """Append what arrives to ``job.part`` from ``offset`` on; returns the length of the file."""
    from tqdm import tqdm

    hidden = None if job.progress else True
    bar = tqdm(total=total, initial=offset, unit="B", unit_scale=True, desc=job.destination.name, disable=hidden)
    with bar, open(job.part, "ab" if offset else "wb") as handle:
        for piece in pieces:
            handle.write(piece)
            bar.update(len(piece))
        return handle.tell()


def _flaw(path: Path, job: _Job) -> str | None:
    """What is wrong with a file that should be whole, as a clause; None if nothing is."""
    size = path.stat().st_size
    if size < job.minimal_size:
        return f"the file has {size} bytes, at least {job.minimal_size} are expected"
    if job.sha256 is not None:
        digest = file_digest(path)
        if not digest.startswith(job.sha256):
            return f"its SHA-256 is {digest[: len(job.sha256)]}, expected {job.sha256}; it was removed"
    return None


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
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
    return f"Could not fetch {job.url}: {reason}. Put the file by hand at {job.destination}, {job.otherwise}"

"""A server on the loopback interface that misbehaves as told."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server does; every request is recorded as (path, Range header).

    Attributes:
        content: Of every file without one in ``files``.
        files: Contents by path.
        etag: Mark of the version.
        ranges: Whether it sends parts.
        heeds_versions: Whether it looks at If-Range.
        content_type, encoding: Of its answers.
        cut_after: Bytes of each answer to come before the connection is closed; all where the list is used up.
        stall_after: The same before nothing comes any more until ``released``.
        statuses: Statuses of the next answers.
        shifts: By how much the next parts begin too early.
        declare_length: Whether it says how long the answer is.
        extra: By how much that is too much.
        redirect: Where paths that begin with /moved are; the same with /file where None.
    """

    content: bytes = b""
    files: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = '"one"'
    ranges: bool = True
    heeds_versions: bool = True
    content_type: str = "application/octet-stream"
    encoding: str | None = None
    cut_after: list[int] = field(default_factory=list)
    stall_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    shifts: list[int] = field(default_factory=list)
    declare_length: bool = True
    extra: int = 0
    redirect: str | None = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    root: str = ""
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site, wanted = self.site, self.headers.get("Range")
        site.requests.append((self.path, wanted))
        if site.statuses:
            return self.send_error(site.statuses.pop(0))
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", site.redirect or self.path.replace("/moved", "/file"))
            return self.end_headers()
        content = site.files.get(self.path, site.content)
        start = self._start(wanted)
        if start is not None and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            return self.end_headers()
        if start and site.shifts:
            start -= site.shifts.pop(0)
        self._send(content[start or 0 :], start, len(content))
        return None

    def _start(self, wanted: str | None) -> int | None:
        site, condition = self.site, self.headers.get("If-Range")
        other = site.heeds_versions and condition is not None and condition != site.etag
        if wanted is None or not site.ranges or other:
            return None
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def _send(self, body: bytes, start: int | None, total: int) -> None:
        site = self.site
        # Before the client hears anything: it may hang up at the header, and the test goes on.
        sent = body[: site.cut_after.pop(0)] if site.cut_after else body
        stalls = bool(site.stall_after)
        sent = sent[: site.stall_after.pop(0)] if stalls else sent
        self.send_response(200 if start is None else 206)
        self.send_header("Content-Type", site.content_type)
        if site.encoding:
            self.send_header("Content-Encoding", site.encoding)
        if site.declare_length:
            self.send_header("Content-Length", str(len(body) + site.extra))
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if site.etag:
            self.send_header("ETag", site.etag)
        self.end_headers()
        self.wfile.write(sent)
        if stalls:
            self.wfile.flush()
            site.released.wait(30)

    def log_message(self, *args: object) -> None:
        """Tests print no requests."""


@contextlib.contextmanager
def serving(content: bytes, tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """A site with this content at a free port, by HTTPS where ``tls`` is given."""
    state = Site(content)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"site": state}))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    state.root = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    state.url = f"{state.root}/file.pth"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        server.shutdown()
        server.server_close()

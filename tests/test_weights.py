"""Fetching from a server that misbehaves, and bundled weights with their cards."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from saminv import weights
from saminv._errors import CheckpointError, InputError, OutputError, WeightsError
from saminv.weights import cards, fetch, load_bundled, obtain, weights_folder, write_card

CONTENT = bytes(range(256)) * 400
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """What the server does; every request is recorded as (path, Range header)."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    ranges: bool = True
    content_type: str = "application/octet-stream"
    cut_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    declare_length: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)
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
            self.send_header("Location", self.path.replace("/moved", "/file"))
            return self.end_headers()
        start = self._start(wanted)
        if start is not None and start >= len(site.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(site.content)}")
            return self.end_headers()
        self._send(site.content[start or 0 :], start)
        return None

    def _start(self, wanted: str | None) -> int | None:
        condition = self.headers.get("If-Range")
        if wanted is None or not self.site.ranges or (condition is not None and condition != self.site.etag):
            return None
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def _send(self, body: bytes, start: int | None) -> None:
        site = self.site
        # Before the client hears anything: it may hang up at the header, and the test goes on.
        sent = body[: site.cut_after.pop(0)] if site.cut_after else body
        self.send_response(200 if start is None else 206)
        self.send_header("Content-Type", site.content_type)
        if site.declare_length:
            self.send_header("Content-Length", str(len(body)))
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
        if site.etag:
            self.send_header("ETag", site.etag)
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    state = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"site": state}))
    state.url = f"http://127.0.0.1:{server.server_address[1]}/file.pth"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()


def get(site: Site, folder: Path, **options: object) -> Path:
    arguments = {"sha256": DIGEST, "pause": 0.0, "timeout": 5.0, "progress": False, **options}
    return fetch(site.url, folder / "sub" / "file.pth", **arguments)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "sub").iterdir())


def test_fetch_places_the_checked_file_and_nothing_else(site: Site, tmp_path: Path) -> None:
    path = get(site, tmp_path, sha256=DIGEST[:8].upper(), minimal_size=len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["file.pth"]
    assert get(site, tmp_path) == path
    assert len(site.requests) == 1, "a file that is there and right is not fetched again"


def test_fetch_replaces_a_damaged_file(site: Site, tmp_path: Path) -> None:
    get(site, tmp_path).write_bytes(b"damaged")
    assert get(site, tmp_path).read_bytes() == CONTENT


def test_fetch_follows_redirects(site: Site, tmp_path: Path) -> None:
    site.url = site.url.replace("/file", "/moved")
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in site.requests] == ["/moved.pth", "/file.pth"]


@pytest.mark.parametrize("cut", [1, 5000, len(CONTENT) - 1])
def test_a_truncated_transfer_is_resumed(site: Site, tmp_path: Path, cut: int) -> None:
    site.cut_after = [cut]
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert site.requests[1] == ("/file.pth", f"bytes={cut}-")
    assert names(tmp_path) == ["file.pth"]


def test_an_interrupted_fetch_is_resumed_by_the_next_call(site: Site, tmp_path: Path) -> None:
    site.cut_after = [1000, 500]
    with pytest.raises(WeightsError, match="ended after 1500 of 102400 bytes"):
        get(site, tmp_path, attempts=2)
    assert names(tmp_path) == ["file.pth.part", "file.pth.part.tag"]
    assert get(site, tmp_path, attempts=1).read_bytes() == CONTENT
    assert site.requests[-1][1] == "bytes=1500-"


def test_a_server_without_ranges_sends_everything_again(site: Site, tmp_path: Path) -> None:
    site.ranges, site.cut_after = False, [1000]
    assert get(site, tmp_path).read_bytes() == CONTENT


def test_content_that_changed_between_attempts_is_not_joined(site: Site, tmp_path: Path) -> None:
    site.cut_after = [1000]
    with pytest.raises(WeightsError):
        get(site, tmp_path, attempts=1, sha256=None)
    site.content, site.etag = CONTENT[::-1], '"two"'
    assert get(site, tmp_path, sha256=None).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_version_mark_and_checksum_nothing_is_resumed(site: Site, tmp_path: Path, etag: str | None) -> None:
    site.etag, site.cut_after = etag, [1000]
    assert get(site, tmp_path, sha256=None).read_bytes() == CONTENT
    assert [wanted for _, wanted in site.requests] == [None, None]


def test_a_joined_file_with_a_wrong_checksum_is_fetched_anew(site: Site, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file.pth.part").write_bytes(b"x" * 1000)
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert [wanted for _, wanted in site.requests] == ["bytes=1000-", None]


def test_a_part_that_was_complete_is_used(site: Site, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file.pth.part").write_bytes(CONTENT)
    assert get(site, tmp_path, attempts=1).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_dropped(site: Site, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file.pth.part").write_bytes(CONTENT + b"more")
    assert get(site, tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_removes_the_file(site: Site, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"SHA-256 is .*expected 00000000") as caught:
        get(site, tmp_path, sha256="0" * 8)
    assert names(tmp_path) == []
    for part in (site.url, str(tmp_path / "sub" / "file.pth"), "SAMINV_WEIGHTS", "weights="):
        assert part in str(caught.value), "the message must name the address, the path and the other ways"
    assert len(site.requests) == 1, "a whole file that is wrong is not asked for again"


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_is_refused(site: Site, tmp_path: Path, content_type: str) -> None:
    site.content, site.content_type = b"\n <!DOCTYPE html><title>Please log in</title>", content_type
    with pytest.raises(WeightsError, match="web page"):
        get(site, tmp_path, sha256=None)
    assert names(tmp_path) == []


def test_a_file_below_the_minimal_size_is_refused(site: Site, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="102400 bytes, at least 102401"):
        get(site, tmp_path, sha256=None, minimal_size=102401)
    # Without a declared length a cut transfer shows by its size only.
    site.declare_length, site.cut_after = False, [10]
    with pytest.raises(WeightsError, match="the file has 10 bytes"):
        get(site, tmp_path, sha256=None, minimal_size=1000, attempts=1)
    assert names(tmp_path) == []


def test_statuses_are_retried_only_if_they_may_pass(site: Site, tmp_path: Path) -> None:
    site.statuses = [404]
    with pytest.raises(WeightsError, match="answered 404"):
        get(site, tmp_path)
    site.statuses = [503, 500]
    assert get(site, tmp_path).read_bytes() == CONTENT
    site.statuses = [503] * 3
    with pytest.raises(WeightsError, match="answered 503"):
        get(site, tmp_path / "other")
    assert len(site.requests) == 1 + 3 + 3


def test_no_connection_names_the_way_out(site: Site, tmp_path: Path) -> None:
    # Port 1 of the loopback is closed on any ordinary machine.
    site.url = "http://127.0.0.1:1/file.pth"
    with pytest.raises(WeightsError, match="no connection") as caught:
        get(site, tmp_path, attempts=2)
    assert str(tmp_path / "sub" / "file.pth") in str(caught.value)


def test_fetch_refuses_bad_arguments(site: Site, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hexadecimal"):
        get(site, tmp_path, sha256="nonsense")
    with pytest.raises(InputError, match="http"):
        fetch("file:///etc/hostname", tmp_path / "x", sha256=None)
    (tmp_path / "blocked").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match="blocked"):
        get(site, tmp_path / "blocked")


def test_weights_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SAMINV_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights_folder() == tmp_path / "saminv"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert weights_folder() == Path.home() / ".cache" / "saminv"
    monkeypatch.setenv("SAMINV_WEIGHTS", str(tmp_path / "mine"))
    assert weights_folder() == tmp_path / "mine"


def test_obtain_takes_the_given_file_or_the_folder_or_fetches(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAMINV_WEIGHTS", str(tmp_path / "cache"))
    fetched = obtain(site.url, sha256=DIGEST, minimal_size=100, progress=False)
    assert fetched == tmp_path / "cache" / "file.pth"
    assert obtain(site.url, sha256=DIGEST, minimal_size=100) == fetched
    assert obtain(site.url, sha256=DIGEST, minimal_size=100, given=tmp_path / "cache") == fetched
    assert len(site.requests) == 1
    with pytest.raises(WeightsError, match="absent"):
        obtain(site.url, sha256=DIGEST, minimal_size=100, given=tmp_path / "absent.pth")
    fetched.write_bytes(b"short")
    with pytest.raises(CheckpointError, match="Delete it"):
        obtain(site.url, sha256=DIGEST, minimal_size=100)
    assert len(site.requests) == 1, "nothing falls back silently"


CARD = {"kind": "a test", "licence": "MIT", "data": "none", "trained_by": "saminv train nothing"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "cards.toml").write_text("# heading\n# second line\n")
    save_file({"a": torch.arange(6.0).reshape(2, 3)}, tmp_path / "toy.safetensors", metadata={"config": "{}"})
    write_card("toy", **CARD, figures={"PSNR, dB": 30.5, "steps": 7, "sharp": True}, folder=tmp_path)
    return tmp_path


def test_bundled_weights_come_back_with_metadata_and_card(bundle: Path) -> None:
    tensors, metadata = load_bundled("toy", bundle)
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3))
    assert metadata == {"config": "{}"}
    card = cards(bundle)["toy"]
    assert card.figures == {"PSNR, dB": 30.5, "steps": 7, "sharp": True}
    assert card.sha256 == hashlib.sha256((bundle / "toy.safetensors").read_bytes()).hexdigest()


def test_write_card_replaces_its_own_entry_and_keeps_the_rest(bundle: Path) -> None:
    save_file({"b": torch.ones(1)}, bundle / "other.safetensors")
    write_card("other", **CARD, folder=bundle)
    written = write_card("toy", **{**CARD, "data": "changed"}, folder=bundle)
    assert set(cards(bundle)) == {"toy", "other"}
    assert cards(bundle)["toy"] == written
    assert (bundle / "cards.toml").read_text().startswith("# heading\n# second line\n")
    assert not [path for path in bundle.iterdir() if path.suffix not in (".toml", ".safetensors")]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    number=st.floats(allow_nan=False) | st.integers(-(2**63), 2**63 - 1),
)
def test_cards_survive_any_text_and_number(bundle: Path, text: str, number: float) -> None:
    written = write_card("toy", **CARD, description=text, figures={text: text, "n" + text: number}, folder=bundle)
    assert cards(bundle)["toy"] == written


def test_load_bundled_refuses_what_is_not_on_the_card(bundle: Path) -> None:
    with pytest.raises(CheckpointError, match="There are: toy"):
        load_bundled("nothing", bundle)
    file = bundle / "toy.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match="not the one on its card"):
        load_bundled("toy", bundle)
    file.unlink()
    with pytest.raises(CheckpointError, match="saminv train nothing"):
        load_bundled("toy", bundle)


@pytest.mark.parametrize("content", [b"", b"\x08", b"not safetensors at all", b"\xff" * 64])
def test_damaged_safetensors_are_a_checkpoint_error(bundle: Path, content: bytes) -> None:
    (bundle / "toy.safetensors").write_bytes(content)
    write_card("toy", **CARD, folder=bundle)
    with pytest.raises(CheckpointError, match="damaged or no safetensors"):
        load_bundled("toy", bundle)


def test_damaged_or_missing_cards(bundle: Path) -> None:
    (bundle / "cards.toml").write_text("[toy]\nfile = 3 4\n")
    with pytest.raises(CheckpointError, match="damaged"):
        cards(bundle)
    (bundle / "cards.toml").write_text('[toy]\nfile = "toy.safetensors"\n')
    with pytest.raises(CheckpointError, match="damaged"):
        cards(bundle)
    (bundle / "cards.toml").unlink()
    with pytest.raises(CheckpointError, match="Install the package again"):
        cards(bundle)


def test_write_card_refuses_bad_names_values_and_missing_files(bundle: Path) -> None:
    with pytest.raises(InputError):
        write_card("no/name", **CARD, folder=bundle)
    with pytest.raises(CheckpointError, match="save the weights"):
        write_card("absent", **CARD, folder=bundle)
    with pytest.raises(InputError, match="strings, numbers"):
        write_card("toy", **CARD, figures={"list": [1]}, folder=bundle)  # type: ignore[dict-item]
    assert set(cards(bundle)) == {"toy"}


def test_every_bundled_file_has_a_card_that_fits() -> None:
    folder = Path(weights.__file__).parent
    assert {path.name for path in folder.glob("*.safetensors")} == {card.file for card in cards().values()}
    for name, card in cards().items():
        tensors, _ = load_bundled(name)
        assert tensors and card.licence and card.trained_by and card.data

"""Fetching from a server that misbehaves, and bundled weights with their cards."""

from __future__ import annotations

import hashlib
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback import Site, serving
from safetensors.torch import save_file

from saminv import weights
from saminv._errors import CheckpointError, InputError, OutputError, WeightsError
from saminv.weights import cards, fetch, load_bundled, obtain, weights_folder, write_card
from saminv.weights._fetch import _direct

CONTENT = bytes(range(256)) * 400
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(CONTENT) as state:
        yield state


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


def test_a_transfer_that_stalls_is_continued_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.stall_after = [5000, 7000]
    assert get(site, tmp_path, timeout=0.3).read_bytes() == CONTENT
    assert [wanted for _, wanted in site.requests] == [None, "bytes=5000-", "bytes=12000-"]


@pytest.mark.parametrize("sha256", [DIGEST, None])
def test_a_part_from_another_place_is_not_joined(site: Site, tmp_path: Path, sha256: str | None) -> None:
    site.cut_after, site.shifts = [1000], [10]
    assert get(site, tmp_path, sha256=sha256).read_bytes() == CONTENT
    assert [wanted for _, wanted in site.requests] == [None, "bytes=1000-", None]


def test_a_part_of_another_version_is_not_joined(site: Site, tmp_path: Path) -> None:
    site.cut_after, site.heeds_versions = [1000], False
    with pytest.raises(WeightsError):
        get(site, tmp_path, attempts=1, sha256=None)
    site.content, site.etag = CONTENT[::-1], '"two"'
    with pytest.raises(WeightsError, match="has changed since its first part"):
        get(site, tmp_path, attempts=1, sha256=None)
    assert get(site, tmp_path, sha256=None).read_bytes() == CONTENT[::-1]


def test_a_length_that_is_too_large_delays_but_does_not_spoil(site: Site, tmp_path: Path) -> None:
    site.extra = 10
    with pytest.raises(WeightsError, match="ended after 102400 of 102410 bytes"):
        get(site, tmp_path, attempts=1)
    assert names(tmp_path) == ["file.pth.part", "file.pth.part.tag"]
    assert get(site, tmp_path, attempts=1).read_bytes() == CONTENT


def test_a_length_that_is_too_small_gives_no_file(site: Site, tmp_path: Path) -> None:
    site.extra = -10
    with pytest.raises(WeightsError, match="SHA-256"):
        get(site, tmp_path)
    with pytest.raises(WeightsError, match="has 102390 bytes, at least 102400"):
        get(site, tmp_path, sha256=None, minimal_size=len(CONTENT))
    assert names(tmp_path) == []


def test_a_compressed_answer_is_refused(site: Site, tmp_path: Path) -> None:
    site.encoding = "gzip"
    with pytest.raises(WeightsError, match="compressed"):
        get(site, tmp_path, sha256=None)
    assert names(tmp_path) == []


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/file.pth", "file:///etc/hostname"])
def test_redirects_out_of_http_are_refused(site: Site, tmp_path: Path, target: str) -> None:
    site.url, site.redirect = site.url.replace("/file", "/moved"), target
    with pytest.raises(WeightsError, match="Could not fetch"):
        get(site, tmp_path, sha256=None)
    assert names(tmp_path) == [] and len(site.requests) == 1


def test_redirects_in_a_circle_end(site: Site, tmp_path: Path) -> None:
    site.url, site.redirect = site.url.replace("/file", "/moved"), "/moved.pth"
    with pytest.raises(WeightsError, match="infinite loop"):
        get(site, tmp_path)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of the loopback address with its key in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("a server by HTTPS needs a certificate, which the program openssl makes")
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    words = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=loopback -keyout {path} -out {path}.crt"
    subprocess.run([openssl, *words.split(), "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


def test_https_is_not_left_for_http(
    site: Site, certificate: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(CONTENT, context) as secure:
        with pytest.raises(WeightsError, match="certificate"):
            get(secure, tmp_path, attempts=1)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert get(secure, tmp_path).read_bytes() == CONTENT
        secure.url, secure.redirect = f"{secure.root}/moved.pth", site.url
        with pytest.raises(WeightsError, match="redirects from https to http://127"):
            get(secure, tmp_path / "other")
        assert site.requests == [], "the file must not even be asked for"
        # A way back to HTTPS does not mend it: between the two anybody could have changed the address.
        site.redirect = f"{secure.root}/file.pth"
        secure.redirect = f"{site.root}/moved.pth"
        with pytest.raises(WeightsError, match="redirects from https to http://127"):
            get(secure, tmp_path / "other")


@pytest.mark.filterwarnings("ignore:Waiting for another process")
def test_of_several_that_want_a_file_one_fetches_it(site: Site, tmp_path: Path) -> None:
    site.stall_after = [2000]
    with ThreadPoolExecutor(3) as pool:
        results = [pool.submit(get, site, tmp_path, sha256=None, timeout=1.0) for _ in range(3)]
        assert [result.result().read_bytes() for result in results] == [CONTENT] * 3
    assert [wanted for _, wanted in site.requests] == [None, "bytes=2000-"]
    assert names(tmp_path) == ["file.pth"]


def test_who_waits_for_another_process_is_told(site: Site, tmp_path: Path) -> None:
    site.stall_after = [2000]
    first = threading.Thread(target=get, args=(site, tmp_path), kwargs={"timeout": 1.0})
    first.start()
    while not site.requests:
        first.join(0.01)
    with pytest.warns(UserWarning, match=r"Waiting for another process to fetch .*file\.pth"):
        get(site, tmp_path)
    first.join()


@pytest.mark.parametrize(
    "link",
    [
        "https://drive.google.com/uc?id=1aB-c_9",
        "https://drive.google.com/uc?export=download&id=1aB-c_9",
        "https://drive.google.com/open?id=1aB-c_9",
        "https://drive.google.com/file/d/1aB-c_9/view?usp=sharing",
    ],
)
def test_links_to_google_drive_lead_to_the_file(link: str) -> None:
    assert _direct(link) == "https://drive.usercontent.google.com/download?id=1aB-c_9&export=download&confirm=t"
    assert _direct("https://example.org/uc?id=1aB-c_9") == "https://example.org/uc?id=1aB-c_9"


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

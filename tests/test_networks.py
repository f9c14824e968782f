"""Published networks: their table, how one comes to this machine, and that it stays what it was."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import re
import runpy
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import torch
from loopback import Site, serving
from toys import LinearGenerator, toy_stylegan2

import saminv
from saminv import _open, cli, images
from saminv._errors import CheckpointError, InputError, WeightsError
from saminv.generators import GENERATORS, save_generator, with_crop
from saminv.weights import NETWORKS, Network, NetworkFile, fetch_network, network_place, read_pins
from saminv.weights._fetch import _direct
from saminv.weights._pins import LOCK, Pin, change_pin
from saminv.weights.networks import FORMS

ROOT = Path(__file__).resolve().parent.parent
ASKED_FOR = {
    "stylegan1": "ffhq-1024 celebahq-1024 bedrooms-256 cars-512x384 cats-256",
    "stylegan2": "ffhq-1024 ffhq-256 cars-512x384 cats-256 horses-256 church-256 bedrooms-256 afhqcat-512 afhqdog-512 "
    "afhqwild-512 metfaces-1024",
    "stylegan3-t": "ffhq-1024 ffhqu-1024 ffhqu-256 afhqv2-512",
    "stylegan3-r": "ffhq-1024 ffhqu-1024 ffhqu-256 afhqv2-512",
    "biggan-deep": "128 256 512",
}
CROP = (24, 32)


def published(site: Site, crop: tuple[int, int] | None = None, **files: bytes) -> Network:
    """A network whose publisher is the site; ``files`` are named by suffix-less names."""
    site.files |= {f"/{name}.safetensors": content for name, content in files.items()}
    entries = (
        NetworkFile(f"{name}.safetensors", f"{site.root}/{name}.safetensors", len(files[name])) for name in files
    )
    return Network("stylegan2", "noise", 32, "genforce", tuple(entries), "MIT", site.root, "0000.00000", crop)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return save_generator(toy_stylegan2(), tmp_path_factory.mktemp("toy") / "toy.safetensors").read_bytes()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Another network in a file of the same size."""
    return save_generator(toy_stylegan2(seed=1), tmp_path_factory.mktemp("other") / "toy.safetensors").read_bytes()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights."""
    monkeypatch.setenv("SAMINV_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def site(content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Publishes the networks "toy", whose pictures are cropped, and "pair", which has two files."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("saminv.weights._fetch.time", SimpleNamespace(sleep=lambda seconds: None))
    for registry in (NETWORKS, GENERATORS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    _open._named_generator.cache_clear()
    with serving(b"absent") as state:
        NETWORKS.add("toy", published(state, CROP, toy=content))
        NETWORKS.add("pair", published(state, config=b"{}" * 40, model=content))
        GENERATORS.add("toy", lambda: _open._open_network("toy"))
        yield state
    _open._named_generator.cache_clear()


def call(line: str) -> int:
    return cli.main(shlex.split(line))


# The table


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_network_is_described(name: str) -> None:
    network = NETWORKS.get(name)
    side = network.resolution
    assert name.startswith(network.family) and re.fullmatch(r"[a-z0-9-]+", name)
    assert network.form in FORMS and network.licence and network.data
    assert re.fullmatch(r"\d{4}\.\d{5}", network.paper) and network.page.startswith("https://github.com/")
    assert side & (side - 1) == 0 and max(network.image_size) == side
    assert name.endswith("x".join(map(str, reversed(network.crop))) if network.crop else str(side))
    for file in network.files:
        assert urlsplit(file.url).scheme == "https" and file.minimal_size > 0 and "/" not in file.name
        assert not network.size or sum(f.minimal_size for f in network.files) < network.size * 1e6
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert "drive.google" not in _direct(file.url), "the page of the file, not the file"
    assert name in GENERATORS


def test_all_that_people_ask_for_are_there() -> None:
    names = {f"{family}-{rest}" for family, rests in ASKED_FOR.items() for rest in rests.split()}
    assert names <= set(NETWORKS)
    addresses = [file.url for name in NETWORKS for file in NETWORKS.get(name).files]
    assert len(set(addresses)) == len(addresses)
    cropped = {name: NETWORKS.get(name).crop for name in NETWORKS if NETWORKS.get(name).crop}
    assert cropped == {"stylegan1-cars-512x384": (384, 512), "stylegan2-cars-512x384": (384, 512)}


def test_a_file_of_known_size_may_be_a_little_shorter_only() -> None:
    assert NETWORKS.get("stylegan2-ffhq-1024").files[0].minimal_size == 374_360_000
    assert NETWORKS.get("stylegan3-t-ffhq-1024").files[0].minimal_size == 40_000_000


def test_an_unknown_name_is_answered_with_the_closest_one(folder: Path) -> None:
    for ask in (fetch_network, saminv.load_generator):
        with pytest.raises(InputError, match="Did you mean 'stylegan2-horses-256'"):
            ask("stylegan2-horse-256")


def test_the_page_lists_all_networks() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "make_networks.py"))
    assert script["table"]() in (ROOT / "docs" / "networks.md").read_text(), "run python docs/make_networks.py"


# From the name to the generator


def test_a_name_is_fetched_once_and_opened_with_its_crop(site: Site, folder: Path, content: bytes) -> None:
    generator = saminv.load_generator("toy")
    place = folder / "toy" / "toy.safetensors"
    assert place.read_bytes() == content and sorted(os.listdir(folder / "toy")) == ["toy.safetensors"]
    assert generator.name == "toy" and generator.image_size == CROP
    whole = toy_stylegan2()
    styles = whole.mapping(whole.sample_z(1, 0))
    assert torch.equal(generator.synthesis(styles), whole.synthesis(styles)[:, :, 4:28])
    _open._named_generator.cache_clear()
    assert saminv.load_generator("toy").fingerprint == whole.fingerprint
    assert len(site.requests) == 1
    assert read_pins() == {"toy": Pin(place, {"toy.safetensors": sha256(content)}, read_pins()["toy"].since)}


def test_crop_of_any_generator(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "toy.safetensors").write_bytes(content)
    generator = saminv.load_generator(tmp_path / "toy.safetensors", crop=(16, 32))
    whole = toy_stylegan2()
    assert generator.image_size == (16, 32) and generator.fingerprint == whole.fingerprint
    assert not any(p.requires_grad for p in generator.parameters()) and not generator.training
    assert saminv.load_generator(whole, crop=(32, 16)).image_size == (32, 16)
    assert whole.image_size == (32, 32)
    assert with_crop(generator, (16, 32)) is generator
    assert with_crop(generator, None).image_size == (32, 32)
    assert {p.data_ptr() for p in with_crop(whole, CROP).parameters()} == {p.data_ptr() for p in whole.parameters()}
    with pytest.raises(InputError, match="does not fit the canvas"):
        with_crop(whole, (33, 32))
    with pytest.raises(InputError, match="LinearGenerator knows no crop"):
        saminv.load_generator(LinearGenerator(), crop=CROP)


def test_a_network_is_inverted_by_name(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images.save("photo.png", torch.zeros(1, 3, *CROP))
    quick = "--metric mse --encoder mean --segmenter none --device cpu --steps 2 --spaces W+"
    assert call(f"invert photo.png --generator toy {quick} --out out") == 0
    solution = saminv.Solution.load(tmp_path / "out" / "photo.safetensors")
    assert solution.provenance["generator"] == "toy" and solution.image.shape[-2:] == CROP
    assert len(site.requests) == 1


# Where the files are


def test_a_network_of_two_files_is_a_folder(site: Site, folder: Path, content: bytes) -> None:
    site.statuses = [404]
    with pytest.raises(WeightsError, match="404") as caught:
        fetch_network("pair", progress=False)
    assert str(folder / "pair" / "config.safetensors") in str(caught.value)
    assert network_place("pair") is None and read_pins() == {}
    assert fetch_network("pair", progress=False) == folder / "pair" == network_place("pair")
    assert read_pins()["pair"].sha256 == {
        "config.safetensors": sha256(b"{}" * 40),
        "model.safetensors": sha256(content),
    }
    (folder / "pair" / "config.safetensors").unlink()
    assert network_place("pair") is None
    fetch_network("pair", progress=False)
    assert [path for path, _ in site.requests] == [f"/{n}.safetensors" for n in ("config", "config", "model", "config")]
    (folder / "pair" / "config.safetensors").write_bytes(b"[]" * 40)
    with pytest.raises(CheckpointError, match=rf"found: {sha256(b'[]' * 40)} \(config") as caught:
        fetch_network("pair")
    assert "model.safetensors" not in str(caught.value), "only what has changed is told"


def test_a_failed_fetch_says_where_to_put_the_file(site: Site, folder: Path, content: bytes) -> None:
    place = folder / "toy" / "toy.safetensors"
    for spoil in ({"statuses": [404]}, {"statuses": [500] * 3}, {"content_type": "text/html"}, {"encoding": "gzip"}):
        with changed(site, **spoil), pytest.raises(WeightsError) as caught:
            saminv.load_generator("toy")
        for part in (site.files and NETWORKS.get("toy").files[0].url, f"by hand at {place}", "saminv fetch toy --from"):
            assert part in str(caught.value)
    # What the message says does work.
    site.requests.clear()
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    assert saminv.load_generator("toy").image_size == CROP
    assert site.requests == [] and read_pins()["toy"].sha256 == {"toy.safetensors": sha256(content)}


@contextlib.contextmanager
def changed(site: Site, **settings: object) -> Iterator[None]:
    before = dataclasses.replace(site)
    for name, value in settings.items():
        setattr(site, name, value)
    yield
    for name in settings:
        setattr(site, name, getattr(before, name))


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [(b"", "is empty"), (b"\n<!DOCTYPE html><title>Log in</title>", "is a web page"), (b"\0" * 999, "has 999 bytes")],
)
def test_what_cannot_be_the_file_is_refused(site: Site, folder: Path, spoilt: bytes, message: str) -> None:
    place = folder / "toy" / "toy.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(spoilt)
    with pytest.raises(CheckpointError, match=message) as caught:
        fetch_network("toy", accept=True)
    assert str(place) in str(caught.value)
    assert site.requests == [] and read_pins() == {} and place.read_bytes() == spoilt


def test_a_local_file_is_taken_where_it_is(site: Site, tmp_path: Path, content: bytes) -> None:
    mine = tmp_path / "mine" / "renamed.safetensors"
    with pytest.raises(WeightsError, match="no network at"):
        fetch_network("toy", given=mine)
    mine.parent.mkdir()
    mine.write_bytes(content)
    assert fetch_network("toy", given=mine) == mine == fetch_network("toy") == network_place("toy")
    assert saminv.load_generator("toy").image_size == CROP
    moved = mine.rename(tmp_path / "toy.safetensors")
    with pytest.raises(WeightsError, match="is not there any more") as caught:
        fetch_network("toy")
    assert str(mine) in str(caught.value) and "saminv fetch toy --from" in str(caught.value)
    since = read_pins()["toy"].since
    assert fetch_network("toy", given=tmp_path) == moved, "a folder that holds it is as good"
    assert read_pins()["toy"] == Pin(moved, {"toy.safetensors": sha256(content)}, since)
    assert site.requests == []


def test_one_file_may_stand_for_a_folder(site: Site, tmp_path: Path, content: bytes) -> None:
    mine = tmp_path / "converted.safetensors"
    mine.write_bytes(content)
    assert fetch_network("pair", given=mine) == mine == fetch_network("pair")
    assert read_pins()["pair"].sha256 == {"converted.safetensors": sha256(content)}
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"config\.safetensors and model\.safetensors"):
        fetch_network("pair", given=tmp_path / "half")
    assert site.requests == []


def test_a_network_is_fetched_to_a_place(site: Site, folder: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "models").mkdir()
    first = fetch_network("toy", to=tmp_path / "models")
    assert first == tmp_path / "models" / "toy.safetensors" == fetch_network("toy")
    assert not (folder / "toy").exists()
    second = fetch_network("toy", to=tmp_path / "new" / "file.safetensors")
    assert second.read_bytes() == content and fetch_network("toy") == second
    assert len(site.requests) == 1, "what is here is copied"
    with pytest.raises(InputError, match="is there already") as caught:
        fetch_network("toy", to=first)
    assert f"saminv fetch toy --from {first}" in str(caught.value)
    with pytest.raises(InputError, match="not both"):
        fetch_network("toy", to=tmp_path / "x", given=first)
    pair = fetch_network("pair", to=tmp_path / "models")
    assert pair == tmp_path / "models" / "pair" and sorted(os.listdir(pair)) == [
        "config.safetensors",
        "model.safetensors",
    ]
    # A file that is lost is fetched to another place, but only the same one.
    second.unlink()
    assert fetch_network("toy", to=tmp_path / "third.safetensors").read_bytes() == content


# That it stays what it was


def assert_told(error: BaseException, *digests: str, command: str) -> None:
    for part in (*digests, command):
        assert part in str(error), f"{part} is not in: {error}"


def test_a_file_that_changes_here_is_noticed(site: Site, folder: Path, content: bytes, other: bytes) -> None:
    place = fetch_network("toy")
    place.write_bytes(other)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="not what it was at its first use here") as caught:
            saminv.load_generator("toy")
        assert_told(caught.value, sha256(content), sha256(other), command="saminv fetch toy --accept")
    assert fetch_network("toy", accept=True) == place
    assert saminv.load_generator("toy").fingerprint == toy_stylegan2(seed=1).fingerprint
    place.write_bytes(content)
    with pytest.raises(CheckpointError):
        fetch_network("toy")
    assert len(site.requests) == 1


def test_a_file_that_changes_there_is_noticed(site: Site, folder: Path, content: bytes, other: bytes) -> None:
    place = fetch_network("toy", progress=False)
    place.unlink()
    site.files["/toy.safetensors"] = other
    with pytest.raises(WeightsError) as caught:
        fetch_network("toy", progress=False)
    assert_told(caught.value, sha256(content), sha256(other), command="saminv fetch toy --accept")
    assert not place.exists()
    assert fetch_network("toy", accept=True, progress=False).read_bytes() == other
    assert fetch_network("toy").read_bytes() == other


def test_another_local_file_has_to_be_accepted(site: Site, tmp_path: Path, content: bytes, other: bytes) -> None:
    kept = fetch_network("toy")
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(other)
    with pytest.raises(CheckpointError) as caught:
        fetch_network("toy", given=mine)
    assert_told(caught.value, sha256(content), sha256(other), command=f"saminv fetch toy --from {mine} --accept")
    assert fetch_network("toy") == kept
    assert fetch_network("toy", given=mine, accept=True) == mine == fetch_network("toy")


def test_what_the_publisher_says_is_checked_at_the_first_use(
    site: Site, folder: Path, tmp_path: Path, content: bytes, other: bytes
) -> None:
    network = NETWORKS.get("toy")
    stated = dataclasses.replace(network.files[0], sha256=sha256(content))
    NETWORKS._entries["toy"] = dataclasses.replace(network, files=(stated,))
    site.files["/toy.safetensors"] = other
    with pytest.raises(WeightsError) as caught:
        fetch_network("toy", progress=False)
    assert sha256(content) in str(caught.value) and sha256(other) in str(caught.value)
    place = folder / "toy" / "toy.safetensors"
    place.write_bytes(other)
    with pytest.raises(CheckpointError, match="not what its publisher describes"):
        fetch_network("toy")
    place.write_bytes(content)
    assert fetch_network("toy") == place
    # A file of one's own may have another form, so its checksum says nothing.
    (folder / LOCK).unlink()
    (tmp_path / "mine.safetensors").write_bytes(other)
    assert fetch_network("toy", given=tmp_path / "mine.safetensors") == tmp_path / "mine.safetensors"


# The lock file


def test_the_lock_file_can_be_read_and_moved(
    site: Site, folder: Path, tmp_path: Path, monkeypatch, content: bytes
) -> None:
    outside = tmp_path / 'with "quotes".safetensors'
    outside.write_bytes(content)
    fetch_network("toy")
    fetch_network("pair", given=outside)
    text = (folder / LOCK).read_text()
    assert text.startswith("# What each named network was") and "saminv fetch NAME --accept" in text
    assert '[toy]\npath = "toy/toy.safetensors"' in text and f'"toy.safetensors" = "{sha256(content)}"' in text
    assert sorted(os.listdir(folder)) == [LOCK, "toy"]
    folder.rename(tmp_path / "moved")
    monkeypatch.setenv("SAMINV_WEIGHTS", str(tmp_path / "moved"))
    assert network_place("toy") == tmp_path / "moved" / "toy" / "toy.safetensors"
    assert network_place("pair") == outside
    fetch_network("toy")
    assert len(site.requests) == 1


@pytest.mark.parametrize(
    "text",
    ["[toy", "toy = 3", "[toy]", '[toy]\npath = "x"\nsince = "y"\nsha256 = { x = "12" }', "[toy]\npath = 1", "\udcff"],
)
def test_a_damaged_lock_file_is_an_error(site: Site, folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / LOCK).write_bytes(text.encode(errors="surrogateescape"))
    for ask in (lambda: fetch_network("toy"), lambda: network_place("toy"), lambda: change_pin("toy", lambda pin: pin)):
        with pytest.raises(CheckpointError, match=r"networks\.lock cannot be read"):
            ask()
    assert (folder / LOCK).read_bytes() == text.encode(errors="surrogateescape")


def test_any_name_and_path_can_be_pinned(folder: Path, tmp_path: Path) -> None:
    pins = {
        name: Pin(tmp_path / name, {name: "0" * 64}, "2026-01-31") for name in ("a.b", 'quote"', "ü", "x y", "ok-1")
    }
    for name, pin in pins.items():
        change_pin(name, lambda before, pin=pin: pin)
    assert read_pins() == pins


def pin_many(names: list[str], place: Path) -> None:
    for name in names:
        change_pin(name, lambda pin: Pin(place, {"x": "0" * 64}, "2026-01-31"))


def test_processes_do_not_lose_what_others_pin(folder: Path, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    shares = [[f"{letter}{number}" for number in range(8)] for letter in "ab"]
    workers = [fork.Process(target=pin_many, args=(share, tmp_path / "x")) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert set(read_pins()) == {*shares[0], *shares[1]}
    assert os.listdir(folder) == [LOCK]


def test_a_folder_that_cannot_be_written_is_used_with_a_warning(
    site: Site, folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "toy").mkdir(parents=True)
    (folder / "toy" / "toy.safetensors").write_bytes(content)

    def refuse(name: str, change: Callable[[Pin | None], Pin]) -> None:
        change(None)
        raise saminv.OutputError("Cannot write there.")

    monkeypatch.setattr("saminv.weights._local.change_pin", refuse)
    with pytest.warns(UserWarning, match=r"toy is used without being pinned\. Cannot write there"):
        assert fetch_network("toy") == folder / "toy" / "toy.safetensors"


# The command


def test_command_fetches_lists_and_explains(
    site: Site, folder: Path, tmp_path: Path, content: bytes, other: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder / "toy" / "toy.safetensors"
    assert call("fetch toy") == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert shown["place"] == str(place) and shown["sha256"] == sha256(content) and shown["licence"] == "MIT"
    assert call("fetch --list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(NETWORKS)
    row = next(line for line in lines if line.startswith("toy "))
    assert row.split() == ["toy", "32", "x", "24", "?", "yes", "noise", "MIT"]
    assert next(line for line in lines if line.startswith("pair ")).split()[5] == "no"
    assert call("fetch --list --json") == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(listed) == set(NETWORKS) and listed["toy"]["place"] == str(place)
    assert listed["biggan-deep-128"]["urls"][0].endswith("biggan-deep-128-config.json")
    place.write_bytes(other)
    assert call("fetch toy") == 2
    assert_told(AssertionError(capsys.readouterr().err), sha256(content), sha256(other), command="--accept")
    assert call("fetch toy --accept --json") == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == {"toy.safetensors": sha256(other)}
    assert call(f"fetch pair --to {tmp_path / 'pair'}") == 0
    assert f"{sha256(content)} model.safetensors" in capsys.readouterr().out
    assert call(f"fetch toy --from {tmp_path / 'absent'}") == 1
    assert capsys.readouterr().err.startswith("saminv: There is no network at")


@pytest.mark.parametrize("line", ["fetch", "fetch toy --list", "fetch nothing", "fetch toy --from a --to b"])
def test_command_refuses(site: Site, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(line) == 2
    assert capsys.readouterr().err.startswith("saminv: ") and site.requests == []

"""Summaries of runs: the figures, the page, and that nothing but the folder is needed."""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from toys import toy_stylegan2

from saminv import InputError, cli, images
from saminv._version import __version__
from saminv.generators import save_generator
from saminv.runs.gallery import choose
from saminv.runs.manifest import FILE, FORMAT
from saminv.runs.summary import describe_run, summarise_run

STRANGE = "<b>\"x\" & 'y'.ü"
VOID = {"meta", "img", "link", "br", "rect", "path"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects what a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data) -> None:
        self.texts.append(data)

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]

    def links(self) -> list[str]:
        return [attributes["href"] for attributes in self.of("a")] + [image["src"] for image in self.of("img")]


def check_page(folder: Path) -> Page:
    """A page that stands alone: all it refers to is there, and nothing is from elsewhere."""
    text = (folder / "gallery.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.of("script") and not page.of("link") and "http" not in text and "@import" not in text
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for link in page.links():
        assert link[1:] in ids if link.startswith("#") else (folder / unquote(link)).is_file(), link
    assert all(image["alt"] for image in page.of("img"))
    assert page.of("html") == [{"lang": "en"}] and len(page.of("h1")) == 1
    assert "prefers-color-scheme: dark" in text
    return page


def record(name: str, psnr: float | None = 20.0, **more) -> dict:
    metrics = {"psnr": psnr, "ssim": 0.5, "mse": 0.01, "demo": 0.2, "steps": 30.0, "share/W+": 0.75, "share/F4": 0.25}
    base = {"name": name, "source": None, "sha256": "", "status": "completed", "reason": None, "warnings": []}
    return {**base, "seconds": 1.5, "metrics": metrics, "files": {}, **more}


def failed(name: str, reason: str = "it is empty") -> dict:
    return record(name, status="failed", reason=reason, metrics={})


def write_run(folder: Path, *records: dict) -> Path:
    folder.mkdir(exist_ok=True)
    header = {"format": FORMAT, "saminv": __version__, "settings": {"steps": 30, "metric": "</pre><script>"}}
    (folder / FILE).write_text("".join(json.dumps(entry) + "\n" for entry in (header, *records)))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over four pictures, one of them unreadable."""
    place = tmp_path_factory.mktemp("finished")
    generator = save_generator(toy_stylegan2(), place / "toy.safetensors")
    (place / "photos").mkdir()
    for seed, name in enumerate(("one", "two", STRANGE)):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / "photos" / f"{name}.png")
    (place / "photos" / "<i>bad.png").touch()
    words = "--metric mse --encoder mean --segmenter none --device cpu --steps 2 --spaces W+ F4"
    command = ["run", place / "photos", "--generator", generator, *words.split(), "--out", place / "out"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert cli.main([str(word) for word in command]) == 3
    return place / "out"


def summarise(*words: object) -> int:
    return cli.main([str(word) for word in ("summarise", *words)])


def test_it_prints_and_writes(finished, tmp_path, capsys) -> None:
    pytest.importorskip("matplotlib")
    assert summarise(finished, "--out", tmp_path / "new") == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert told.err == "" and lines[0] == f"{finished}: 4 pictures: 3 completed, 1 failed"
    assert " ".join(lines[2].split()) == "count mean std min 5 % 25 % median 75 % 95 % max"
    starts = ("PSNR, dB ", "SSIM ", "perceptual (mse) ", "steps ", "seconds ", "share of W+ ", "share of F4 ")
    assert [line.startswith(start) for line, start in zip(lines[3:], starts)] == [True] * len(starts)
    assert any(line.startswith("  <i>bad: ") for line in lines)
    assert lines[-2:] == [str(tmp_path / "new" / name) for name in ("gallery.html", "histograms.png")]
    assert images.load(tmp_path / "new" / "histograms.png").size[0] > 300


def test_the_page_shows_each_picture(finished, tmp_path) -> None:
    assert summarise(finished, "--out", tmp_path) == 0
    page = check_page(tmp_path)
    titles = [text for text in page.texts if text in ("one", "two", STRANGE)]
    assert sorted(titles) == sorted(["one", "two", STRANGE])
    assert not page.of("b") and not page.of("i") and f"{STRANGE}: input" in [image["alt"] for image in page.of("img")]
    assert len(page.of("img")) == 9 and {"W+ 100%", "F4 0%"} <= set(page.texts)
    assert all(images.load(path).size == (256, 256) for path in (tmp_path / "summary").iterdir())
    # The reconstruction leads to the whole one.
    assert sum(unquote(link).endswith(f"results/{STRANGE}.png") for link in page.links()) == 1


def test_small_pictures_of_earlier_pages_go(finished, tmp_path) -> None:
    (tmp_path / "summary").mkdir()
    (tmp_path / "summary" / f"{'a' * 16}-input.png").touch()
    (tmp_path / "summary" / "mine-input.png").touch()
    for by in ("psnr", "seconds"):
        assert summarise(finished, "--out", tmp_path, "--count", 1, "--by", by) == 0
        check_page(tmp_path)
    names = {path.name for path in (tmp_path / "summary").iterdir()}
    assert len(names) == 10 and "mine-input.png" in names and f"{'a' * 16}-input.png" not in names


def test_json(finished, tmp_path, capsys) -> None:
    assert summarise(finished, "--out", tmp_path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["done"] == 3 and list(found["failed"]) == ["<i>bad"] and found["metric"] == "mse"
    assert found["distributions"]["psnr"]["count"] == 3 and found["settings"]["steps"] == 2
    assert found["distributions"]["perceptual"]["max"] < 4
    assert Path(found["files"]["gallery"]).is_file()


def test_without_matplotlib_there_is_the_rest(finished, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert summarise(finished, "--out", tmp_path) == 0
    told = capsys.readouterr()
    assert "saminv[plot]" in told.err and told.err.count("\n") == 1 and "PSNR, dB" in told.out
    assert not (tmp_path / "histograms.png").exists()
    check_page(tmp_path)


def test_distributions_are_right(tmp_path) -> None:
    values = [10.0, 20.0, 40.0, 50.0, 90.0]
    summary = summarise_run(write_run(tmp_path, *[record(str(i), psnr) for i, psnr in enumerate(values)]))
    row = summary.distributions["psnr"]
    assert row["count"] == 5 and row["mean"] == 42 and row["std"] == pytest.approx(math.sqrt(776))
    assert [row[name] for name in ("min", "p5", "p25", "median", "p75", "p95", "max")] == [10, 12, 20, 40, 50, 82, 90]
    assert summary.distributions["perceptual"]["median"] == 0.2 and summary.metric == "demo"
    assert summary.distributions["share/W+"]["mean"] == 0.75 and summary.distributions["seconds"]["max"] == 1.5


def test_the_last_record_of_a_picture_counts(tmp_path) -> None:
    summary = summarise_run(write_run(tmp_path, failed("a"), record("a", 30.0), record("b"), failed("b")))
    assert list(summary.records) == ["a"] and list(summary.failed) == ["b"]
    assert summary.statuses == {"completed": 1, "failed": 1}


def test_alike_notes_are_counted_together(tmp_path) -> None:
    records = [
        record(name, warnings=[f"{name} looks far: {far}"]) for name, far in (("a1", 2.5), ("b", 3), ("c", 4.25))
    ]
    summary = summarise_run(write_run(tmp_path, *records, record("d", warnings=["other", "other"])))
    assert summary.notes == {"a1 looks far: 2.5": 3, "other": 1}
    assert "3 x  a1 looks far: 2.5" in describe_run(summary)


@pytest.mark.parametrize(
    ("total", "count", "sizes"), [(1, 6, [1]), (6, 6, [6]), (7, 6, [2, 2, 2]), (9, 2, [2, 2, 2]), (30, 6, [6, 6, 6])]
)
@pytest.mark.parametrize("by", ["psnr", "mse"])
def test_worst_median_and_best_are_different_pictures(total, count, sizes, by, tmp_path) -> None:
    records = [record(str(i)) for i in range(total)]
    for i, entry in enumerate(records):
        entry["metrics"] = {"psnr": float(i), "mse": float(total - i)}
    groups = choose(summarise_run(write_run(tmp_path, *records)), by, count)
    assert [len(names) for _, _, names in groups] == sizes
    shown = [int(name) for _, _, names in groups for name in names]
    assert len(shown) == len(set(shown)) and shown[0] == 0
    if len(sizes) == 3:
        assert shown[-sizes[0]] == total - 1 and [anchor for anchor, *_ in groups] == ["worst", "median", "best"]


def test_pictures_without_figures_are_shown_apart(tmp_path) -> None:
    folder = write_run(tmp_path, record("a"), record("b", None, status="non_finite"))
    groups = choose(summarise_run(folder), "psnr", 6)
    assert [(anchor, names) for anchor, _, names in groups] == [("all", ["a"]), ("unranked", ["b"])]
    assert summarise(folder) == 0 and "became infinite" in (folder / "gallery.html").read_text()
    with pytest.raises(InputError, match="domain_distance"):
        choose(summarise_run(folder), "beauty", 6)


@pytest.mark.parametrize("records", [[], [failed("a"), failed(STRANGE, "<b>")]], ids=["empty", "failed only"])
def test_runs_without_results(records, tmp_path, capsys) -> None:
    assert summarise(write_run(tmp_path, *records)) == 0
    told = capsys.readouterr().out
    assert ("  a: it is empty" in told) == bool(records) and "PSNR" not in told
    page = check_page(tmp_path)
    assert "No picture has been inverted yet." in page.texts and not page.of("b")
    assert not (tmp_path / "histograms.png").exists()


def test_a_torn_line_does_no_harm(tmp_path, capsys) -> None:
    write_run(tmp_path, record("a"))
    with open(tmp_path / FILE, "a") as file:
        file.write('{"name": "b", "status": "compl')
    before = (tmp_path / FILE).read_bytes()
    assert summarise(tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["done"] == 1 and (tmp_path / FILE).read_bytes() == before


def test_results_that_were_not_kept(tmp_path, capsys) -> None:
    images.save(tmp_path / "source.png", images.from_uint8(np.full((30, 40, 3), 200, np.uint8)))
    images.save(tmp_path / "image.png", images.from_uint8(np.full((32, 32, 3), 90, np.uint8)))
    images.save(tmp_path / "sheet.png", images.from_uint8(np.full((64, 2000, 3), 90, np.uint8)))
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    source = str(tmp_path / "source.png")
    kept = {"a": {"image": "image.png"}, "b": {"sheet": "sheet.png"}, "c": {}, "d": {"solution": "torn.safetensors"}}
    records = [record(name, source=source, files=files) for name, files in kept.items()]
    records.append(record("e", source=str(tmp_path / "gone.png"), files={"image": "gone.png"}))
    assert summarise(write_run(tmp_path, *records)) == 0
    page = check_page(tmp_path)
    alts = {image["alt"] for image in page.of("img")}
    assert alts == {*(f"{name}: input as it was given" for name in "abcd"), "a: reconstruction", "b: sheet"}
    text = " ".join(page.texts)
    assert "torn.safetensors is no readable solution" in text and "gone.png" in text and "W+ 75%" in text
    capsys.readouterr()


def test_names_that_no_encoding_has(tmp_path, capsys) -> None:
    write_run(tmp_path, record("odd\udcff"), failed("worse\udcff\n<i>"))
    assert summarise(tmp_path) == 0
    assert "worse? <i>" in capsys.readouterr().out
    assert "odd?" in check_page(tmp_path).texts


@pytest.mark.parametrize("what", ["gone", "empty", "other"])
def test_folders_without_a_run(what, tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / FILE).write_text('{"format": "else"}\n')
    assert summarise(tmp_path / what) == 2
    told = capsys.readouterr().err
    assert told.startswith("saminv: ") and told.count("\n") == 1
    assert not (tmp_path / "gone").exists() and not list((tmp_path / "empty").iterdir())


def test_an_unwritable_place(tmp_path, capsys) -> None:
    (tmp_path / "file").touch()
    assert summarise(write_run(tmp_path / "run"), "--out", tmp_path / "file") == 1
    assert "output folder" in capsys.readouterr().err

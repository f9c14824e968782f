"""`saminv run`: what it writes, that it goes on where it stopped, what it passes over, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import toy_stylegan2

import saminv
from saminv import cli, images
from saminv.generators import save_generator
from saminv.optim import Problem
from saminv.runs import Manifest, read_manifest

NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_generator(toy_stylegan2(), tmp_path_factory.mktemp("generator") / "toy.safetensors")


@pytest.fixture(scope="module")
def quick(generator: Path) -> list[str]:
    """Options that make an inversion take no time."""
    words = "--metric mse --encoder mean --segmenter none --device cpu --steps 2 --spaces W+ F4"
    return ["--generator", str(generator), *words.split()]


def paint(path: Path, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.kron(pixels, np.ones((8, 8, 1))).astype(np.uint8)).save(path)
    return path


@pytest.fixture()
def photos(tmp_path: Path) -> Path:
    """A folder with three pictures."""
    for seed, name in enumerate(NAMES):
        paint(tmp_path / "photos" / f"{name}.png", seed)
    return tmp_path / "photos"


@pytest.fixture()
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture()
def call(quick, out, capsys):
    """Runs the command and returns its exit code, its JSON report and its messages."""

    def run(*words: object) -> tuple[int, dict, str]:
        code = cli.main([str(word) for word in ("run", *words, *quick, "--out", out, "--json")])
        told = capsys.readouterr()
        return code, json.loads(told.out) if told.out else {}, told.err

    return run


def lines(out: Path) -> int:
    """Records in the manifest, those of earlier tries included."""
    return len((out / "manifest.jsonl").read_text().splitlines()) - 1


def test_a_run_writes_results_and_a_manifest(photos, quick, out, capsys) -> None:
    paint(photos / "cats" / "tom.jpg")
    assert cli.main(["run", str(photos), *quick, "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    first, second, third = told.out.splitlines()
    assert first.startswith("4 of 4 pictures done, 0 passed over. This call: 4 pictures, ") and "per minute" in first
    assert second.startswith("Median PSNR ") and third == f"saminv summarise {out}"
    assert {path.name for path in (out / "results").iterdir()} == {
        "cats",
        *(f"{name}{suffix}" for name in NAMES for suffix in (".png", ".safetensors")),
    }
    header, records = read_manifest(out)
    assert header["settings"]["steps"] == 2 and set(records) == {*NAMES, "cats/tom"}
    assert records["one"]["status"] == "completed" and records["one"]["metric"] == "mse"


def test_json_report(photos, call, out) -> None:
    code, report, _ = call(photos)
    assert code == 0 and report["folder"] == str(out) and not report["interrupted"]
    assert (report["total"], report["done"], report["failed"], report["fresh"]) == (3, 3, {}, 3)
    psnr = [record["metrics"]["psnr"] for record in read_manifest(out)[1].values()]
    assert report["median_psnr"] == pytest.approx(np.median(psnr))
    assert report["images_per_minute"] == pytest.approx(180 / report["seconds"], rel=0.05)


def test_the_same_command_does_nothing_again(photos, call, out, generator) -> None:
    call(photos)
    before = {path: path.stat().st_mtime_ns for path in (out / "results").iterdir()}
    code, report, _ = call(photos)
    assert (code, report["done"], report["fresh"]) == (0, 3, 0)
    assert before == {path: path.stat().st_mtime_ns for path in (out / "results").iterdir()} and lines(out) == 3
    solution = saminv.Solution.load(out / "results" / "two.safetensors", generator=generator)
    assert solution.provenance["names"] == ["two"]


def test_new_changed_and_lost_pictures_are_done(photos, call, out) -> None:
    call(photos)
    paint(photos / "four.png", 4)
    paint(photos / "two.png", 20)
    (out / "results" / "three.png").unlink()
    code, report, _ = call(photos)
    assert (code, report["total"], report["done"], report["fresh"]) == (0, 4, 4, 3)


@pytest.mark.parametrize(
    ("words", "what"), [("--tau 0.1", "tau (there null, now 0.1)"), ("--keep image", '["solution", "image"]}}, now')]
)
def test_other_settings_are_refused_with_both_values(words, what, photos, call) -> None:
    call(photos)
    code, _, told = call(photos, *words.split())
    assert code == 2 and what in told and "other settings" in told


def test_settings_of_a_run_without_results_may_change(photos, call, out) -> None:
    code, _, told = call(photos, "--tau", "car=0.4")
    assert code == 2 and "no names" in told and not (out / "manifest.jsonl").exists()
    assert call(photos)[0] == 0


def test_unreadable_pictures_are_passed_over(photos, call, out) -> None:
    (photos / "bad.png").write_text("no picture")
    (photos / "empty.jpg").touch()
    code, report, told = call(photos)
    assert code == 3 and set(report["failed"]) == {"bad", "empty"} and report["done"] == 3
    assert "passed over bad: " in told and "passed over empty: " in told and told.count("\n") == 2
    assert read_manifest(out)[1]["bad"]["reason"] == report["failed"]["bad"]
    assert call(photos)[:2] == (3, {**report, "fresh": 0, "seconds": 0.0, "images_per_minute": None})
    assert call(photos, "--retry")[1]["fresh"] == 2 and lines(out) == 7
    paint(photos / "bad.png", 9)
    (photos / "empty.jpg").unlink()
    assert call(photos)[0] == 0


def test_at_most_twenty_are_listed(tmp_path, call) -> None:
    (tmp_path / "bad").mkdir()
    for index in range(23):
        (tmp_path / "bad" / f"{index}.png").touch()
    code, report, told = call(tmp_path / "bad")
    assert code == 3 and len(report["failed"]) == 23 and report["median_psnr"] is None
    assert told.count("\n") == 21 and "passed over 3 more" in told.splitlines()[-1]


def test_limit_and_shuffle(photos, call, out) -> None:
    assert call(photos, "--limit", 1)[1]["total"] == 1 and set(read_manifest(out)[1]) == {"one"}
    report = call(photos, "--limit", 2, "--shuffle-seed", 1)[1]
    assert report["total"] == report["done"] == 2
    assert call(photos, "--limit", 2, "--shuffle-seed", 1)[1]["fresh"] == 0
    assert call(photos)[1]["done"] == 3 and lines(out) == 3


def test_a_sequence_starts_from_the_picture_before(tmp_path, quick, capsys) -> None:
    for name in ("frame2", "frame10"):
        paint(tmp_path / "frames" / f"{name}.png", 5)
    found = []
    # Stopped after the first frame, or not.
    for out, limits in (("whole", [2]), ("parts", [1, 2])):
        for limit in limits:
            words = [*quick, "--sequence", "--limit", limit, "--out", tmp_path / out]
            assert cli.main([str(word) for word in ("run", tmp_path / "frames", *words)]) == 0
        records = read_manifest(tmp_path / out)[1]
        found.append([records[name]["metrics"]["psnr"] for name in ("frame2", "frame10")])
    assert found[0] == found[1] and found[0][1] > found[0][0]


@pytest.mark.parametrize("more", [("--workers", 2), ("--shuffle-seed", 0)])
def test_what_no_sequence_can_have(more, photos, call) -> None:
    code, _, told = call(photos, "--sequence", *more)
    assert code == 2 and "sequence" in told


def test_keep(photos, call, out) -> None:
    # Were sheets beside the images, the sheet of one would be the image of the other.
    paint(photos / "one-sheet.png", 7)
    assert call(photos, "--keep", "sheet", "image")[0] == 0
    assert sum(path.is_file() for path in out.rglob("*.png")) == 8
    assert images.load(out / "results" / "one-sheet.png").size == (32, 32)
    assert not list(out.rglob("*.safetensors"))
    assert call(photos, "--keep", "image", "sheet")[1]["fresh"] == 0


def test_strange_names(tmp_path, call, out) -> None:
    names = ["<b>&amp;", "a b", "ünïcode", "-dash", "dots.in.it"]
    for seed, name in enumerate(names):
        paint(tmp_path / "photos" / f"{name}.png", seed)
    code, report, _ = call(tmp_path / "photos")
    assert code == 0 and report["done"] == 5 and set(read_manifest(out)[1]) == set(names)
    assert call(tmp_path / "photos")[1]["fresh"] == 0


def test_given_things_are_the_same_in_the_next_call(photos, quick, generator, tmp_path, capsys) -> None:
    np.savez(tmp_path / "maps.npz", **{"W+": np.ones((32, 32)), "F4": np.zeros((32, 32))})
    Image.fromarray(np.eye(32, dtype=np.uint8)).save(tmp_path / "labels.png")
    start = tmp_path / "start"
    assert cli.main(["invert", str(photos / "one.png"), *quick, "--out", str(start)]) == 0
    words = ["--metric", "mse", "--steps", 1, "--device", "cpu", "--spaces", "W+", "F4"]
    words += ["--segmenter", tmp_path / "labels.png", "--encoder", start / "one.safetensors", "--generator", generator]
    for name in ("maps.npz", "labels.png"):
        for fresh in (3, 0):
            capsys.readouterr()
            given = ["--invertibility", tmp_path / name, "--out", tmp_path / f"out-{name}", "--json"]
            assert cli.main([str(word) for word in ("run", photos, *words, *given)]) == 0
            assert json.loads(capsys.readouterr().out)["fresh"] == fresh


def test_tau_is_searched_for_each_picture(photos, call, out) -> None:
    assert call(photos, *["--tau", "auto", "--target-psnr", "1"])[0] == 0
    header, records = read_manifest(out)
    assert header["settings"]["target"] == {"stat": "psnr", "value": 1.0}
    assert {record["metrics"]["target_met"] for record in records.values()} == {1.0}


@pytest.mark.parametrize("words", ["--tau auto", "--target-psnr 20"])
def test_a_search_needs_a_target_and_a_target_a_search(words, photos, call) -> None:
    code, _, told = call(photos, *words.split())
    assert code == 2 and "target" in told


@pytest.mark.parametrize("what", ["gone", "empty", "file"])
def test_bad_inputs(what, tmp_path, call) -> None:
    (tmp_path / "empty").mkdir()
    code, _, told = call(tmp_path / what)
    assert code == 2 and what in told and told.startswith("saminv: ") and told.count("\n") == 1


def test_a_folder_in_use(photos, call, out) -> None:
    with Manifest.open(out, {}):
        code, _, told = call(photos)
    assert code == 2 and "Another run is writing" in told


def test_what_is_no_run_at_all(photos, call, out) -> None:
    out.mkdir()
    (out / "manifest.jsonl").write_text("nonsense\n")
    code, _, told = call(photos)
    assert code == 2 and "damaged at line 1" in told


def test_failures_of_the_machine_exit_with_1(photos, call, out, monkeypatch) -> None:
    def fails(*_, **__):
        raise saminv.WorkerError("A worker ended unexpectedly.")

    out.touch()
    assert call(photos)[0] == 1
    monkeypatch.setattr(cli.run, "run", fails)
    assert call(photos)[0] == 1


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch, interrupt) -> None:
    evaluate, calls = Problem.evaluate, []

    def interrupted(self, *arguments):
        calls.append(arguments)
        if len(calls) == step + 1:
            interrupt()
        return evaluate(self, *arguments)

    monkeypatch.setattr(Problem, "evaluate", interrupted)


def ctrl_c() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("interrupt", [ctrl_c, lambda: os.kill(os.getpid(), signal.SIGTERM)], ids=["ctrl-c", "sigterm"])
@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_interruptions(interrupt, photos, call, out, monkeypatch) -> None:
    # Two steps for each picture.
    interrupt_at(3, monkeypatch, interrupt)
    code, report, told = call(photos, "--batch", 1)
    assert code == 130 and told == "saminv: interrupted; 1 of 3 pictures have ended, the same command goes on\n"
    assert report["interrupted"] and (report["total"], report["done"]) == (3, 1)
    code, report, _ = call(photos, "--batch", 1)
    assert (code, report["done"], report["fresh"]) == (0, 3, 2)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_interrupted_before_it_began(photos, call, monkeypatch) -> None:
    monkeypatch.setattr(cli.run, "run", lambda *_, **__: ctrl_c())
    assert call(photos) == (130, {}, "saminv: interrupted\n")


def test_several_processes_give_the_same(photos, call, quick, out, tmp_path) -> None:
    code, report, told = call(photos, "--workers", 2)
    assert (code, report["done"], told) == (0, 3, "")
    assert cli.main(["run", str(photos), *quick, "--out", str(tmp_path / "alone")]) == 0
    here, there = (read_manifest(folder)[1] for folder in (tmp_path / "alone", out))
    for name in NAMES:
        assert there[name]["metrics"]["psnr"] == pytest.approx(here[name]["metrics"]["psnr"], abs=1e-3)


def test_help_states_the_exit_codes(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    told = capsys.readouterr().out
    assert all(f"\n  {code:<5}" in told for code in (0, 1, 2, 3, 130))

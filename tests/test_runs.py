"""Runs over folders: nothing lost, nothing done twice, whatever happens on the way."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from toys import toy_stylegan2

import saminv
from saminv import InputError, OutputError, RunError
from saminv._sources import natural
from saminv.generators import save_generator
from saminv.runs import Manifest, SolutionWriter, collect, manifest, read_manifest, run, stream
from saminv.runs import folder as folder_module

QUICK = {"metric": "mse", "segmenter": "none", "encoder": "mean", "device": "cpu", "progress": False, "steps": 3}


@pytest.fixture(scope="module")
def generator():
    return toy_stylegan2()


@pytest.fixture()
def quick(generator):
    def call(images, out, **more):
        return run(images, out, ["W+", "F4"], **(QUICK | {"generator": generator} | more))

    return call


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture()
def photos(tmp_path):
    folder = tmp_path / "photos"
    for number in range(5):
        picture(folder / f"p{number}.png", number)
    return folder


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def results(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in (folder / "results").rglob("*") if path.is_file())


# What there is to do.


def test_folders_are_searched_and_named_by_their_paths(tmp_path):
    for name in ("b/2.png", "b/10.jpg", "a.webp", "b/.hidden.png", ".thumbs/x.png", "notes.txt"):
        picture(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).write_text("no picture")
    assert [item.name for item in collect([tmp_path])] == ["a", "b/2", "b/10"]


def test_equal_names_are_told_apart_whatever_their_order(tmp_path):
    one, two, three = picture(tmp_path / "a/c.png"), picture(tmp_path / "b/c.png"), picture(tmp_path / "b/C.jpg")
    names = {item.path: item.name for item in collect([one, two, three])}
    assert len({name.casefold() for name in names.values()}) == 3
    assert names == {item.path: item.name for item in collect([three, two, one])}
    assert [item.name for item in collect([one])] == ["c"]


def test_names_given_before_stay(tmp_path):
    one, two = picture(tmp_path / "a/c.png"), picture(tmp_path / "b/c.png")
    known = {str(one): "c"}
    names = {item.path: item.name for item in collect([one, two], known=known)}
    assert names[one] == "c"
    assert names[two].startswith("c-")


def test_loops_of_links_end_and_each_file_counts_once(tmp_path):
    picture(tmp_path / "a/p.png")
    (tmp_path / "a/again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a/same.png").symlink_to(tmp_path / "a/p.png")
    (tmp_path / "a/gone.png").symlink_to(tmp_path / "nowhere.png")
    found = collect([tmp_path, tmp_path / "a"])
    assert sum(item.path == (tmp_path / "a/p.png").resolve() for item in found) == 1
    assert len(found) == 2, "the picture, and the link that leads nowhere"


def test_results_in_the_folder_of_pictures_are_no_pictures(tmp_path, quick):
    picture(tmp_path / "p.png")
    assert quick([tmp_path], tmp_path / "out").total == 1
    assert quick([tmp_path], tmp_path / "out").total == 1


@pytest.mark.parametrize(
    ("sources", "more", "message"),
    [
        ([], {}, "at least one"),
        (["absent"], {}, "no picture or folder absent"),
        (["."], {}, "no pictures"),
        (["p.png"], {"limit": 0}, "from 1 up"),
    ],
)
def test_nothing_to_do_is_said(tmp_path, monkeypatch, sources, more, message):
    picture(tmp_path / "elsewhere/p.png")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(InputError, match=message):
        collect(sources, **more)


def test_limits_and_shuffles(photos):
    every = [item.name for item in collect([photos])]
    assert [item.name for item in collect([photos], limit=2)] == every[:2]
    shuffled = [item.name for item in collect([photos], shuffle_seed=3)]
    assert sorted(shuffled) == every != shuffled
    assert [item.name for item in collect([photos], shuffle_seed=3, limit=2)] == shuffled[:2]


@given(st.lists(st.integers(0, 10**6), min_size=1, unique=True))
def test_numbers_in_names_count_as_numbers(numbers):
    names = [f"frame{number}" for number in numbers]
    assert sorted(names, key=natural) == [f"frame{number}" for number in sorted(numbers)]


# The manifest.


def test_records_come_back_and_the_last_one_counts(tmp_path):
    with Manifest.open(tmp_path, {"a": 1}) as log:
        for record in ({"name": "x", "n": 1}, {"name": "y", "n": 2}, {"name": "x", "n": 3}):
            log.append(record)
    header, records = read_manifest(tmp_path)
    assert header["settings"] == {"a": 1}
    assert {name: record["n"] for name, record in records.items()} == {"x": 3, "y": 2}


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(1, 400))
def test_a_manifest_cut_off_anywhere_keeps_its_whole_lines(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    with Manifest.open(folder, {"a": 1}) as log:
        for number in range(6):
            log.append({"name": f"p{number}"})
    path = folder / "manifest.jsonl"
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    path.write_bytes(whole[: max(first, len(whole) - cut)])
    kept = path.read_bytes().count(b"\n") - 1
    with Manifest.open(folder, {"a": 1}) as log:
        assert list(log.records) == [f"p{number}" for number in range(kept)]
        log.append({"name": "next"})
    assert list(read_manifest(folder)[1]) == [*[f"p{number}" for number in range(kept)], "next"]


def test_a_damaged_manifest_is_refused(tmp_path):
    with Manifest.open(tmp_path, {}) as log:
        log.append({"name": "x"})
        log.append({"name": "y"})
    path = tmp_path / "manifest.jsonl"
    parts = path.read_text().splitlines()
    path.write_text("\n".join([parts[0], parts[1][:5], parts[2]]) + "\n")
    with pytest.raises(RunError, match="damaged at line 2"):
        Manifest.open(tmp_path, {})
    path.write_text("")
    with pytest.raises(RunError, match="empty"):
        Manifest.open(tmp_path, {})


@pytest.mark.parametrize(("key", "value"), [("format", "saminv.run.0"), ("saminv", "0.0.1")])
def test_a_manifest_of_another_version_is_refused(tmp_path, key, value):
    Manifest.open(tmp_path, {}).close()
    path = tmp_path / "manifest.jsonl"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}) + "\n")
    with pytest.raises(RunError, match=value):
        Manifest.open(tmp_path, {})
    Manifest.open(tmp_path / "other", {}).close()


def test_no_run_is_said(tmp_path):
    with pytest.raises(RunError, match="no run"):
        read_manifest(tmp_path)


def test_a_second_run_is_refused_while_the_first_one_lasts(tmp_path, photos, quick):
    with Manifest.open(tmp_path / "out", {}), pytest.raises(RunError, match=f"process {os.getpid()}"):
        quick([photos], tmp_path / "out")


def test_a_failed_opening_leaves_the_folder_free(tmp_path):
    Manifest.open(tmp_path, {"a": 1}).close()
    with pytest.raises(RunError, match="a \\(there 1, now 2\\)"):
        Manifest.open(tmp_path, {"a": 2})
    Manifest.open(tmp_path, {"a": 1}).close()


# Runs.


def test_a_run_and_what_it_leaves(tmp_path, photos, quick, generator):
    report = quick([photos], tmp_path / "out", batch=2, keep=("solution", "image", "sheet"))
    assert (report.total, report.done, report.fresh, report.failed) == (5, 5, 5, {})
    assert len(results(tmp_path / "out")) == 10 and len(list((tmp_path / "out" / "sheets").iterdir())) == 5
    for record in read_manifest(tmp_path / "out")[1].values():
        solution = saminv.Solution.load(tmp_path / "out" / record["files"]["solution"], generator=generator)
        assert float(solution.stats["psnr"]) == pytest.approx(record["metrics"]["psnr"])
        assert solution.provenance["names"] == [record["name"]]
        assert record["status"] == "completed"


def test_pictures_are_inverted_as_by_invert(tmp_path, photos):
    generator = toy_stylegan2(torch.float64)
    settings = {"generator": generator, "metric": "mse", "segmenter": "slic", "encoder": "mean", "steps": 12}
    run([photos], tmp_path, ["W+", "F4"], 0.2, batch=3, progress=False, **settings)
    for path in sorted(photos.iterdir()):
        alone = saminv.invert(path, ["W+", "F4"], 0.2, **settings)
        found = saminv.Solution.load(tmp_path / f"results/{path.stem}.safetensors", generator=generator)
        assert (alone.image - found.image).abs().max() < 1e-6
        assert torch.equal(alone.regions.labels, found.regions.labels)


def test_the_same_call_does_nothing_again(tmp_path, photos, quick):
    quick([photos], tmp_path / "out")
    before = (tmp_path / "out/manifest.jsonl").read_bytes()
    report = quick([photos], tmp_path / "out", batch=1)
    assert (report.done, report.fresh) == (5, 0)
    assert (tmp_path / "out/manifest.jsonl").read_bytes() == before


def test_only_what_is_missing_or_changed_is_done(tmp_path, photos, quick):
    out = tmp_path / "out"
    quick([photos], out, limit=3)
    assert quick([photos], out).fresh == 2
    picture(photos / "p1.png", seed=99)
    (out / "results/p4.png").unlink()
    picture(photos / "new.png", seed=7)
    assert quick([photos], out).fresh == 3
    assert len(read_manifest(out)[1]) == 6


def test_changed_settings_are_refused_with_both_values(tmp_path, photos, quick):
    quick([photos], tmp_path / "out", limit=1)
    with pytest.raises(RunError, match=r"steps \(there 3, now 4\)"):
        quick([photos], tmp_path / "out", steps=4)
    with pytest.raises(RunError, match="fingerprint"):
        quick([photos], tmp_path / "out", generator=toy_stylegan2(seed=1))
    with pytest.raises(RunError, match="tau"):
        quick([photos], tmp_path / "out", tau={"*": 0.2})


def test_unreadable_pictures_are_passed_over_with_the_reason(tmp_path, photos, quick):
    (photos / "p2.png").write_text("no picture")
    (photos / "p0.png").write_bytes(b"")
    report = quick([photos], tmp_path / "out")
    assert (report.done, set(report.failed)) == (3, {"p0", "p2"})
    assert "no picture" in report.failed["p2"]
    assert quick([photos], tmp_path / "out").fresh == 0
    picture(photos / "p2.png")
    report = quick([photos], tmp_path / "out")
    assert (report.fresh, report.done, set(report.failed)) == (1, 4, {"p0"})
    assert quick([photos], tmp_path / "out", retry=True).fresh == 1


def test_a_picture_that_vanishes_is_recorded(tmp_path, photos, quick, monkeypatch):
    real = folder_module.record_of

    def vanish(outcome, writer):
        (photos / "p4.png").unlink(missing_ok=True)
        return real(outcome, writer)

    monkeypatch.setattr(folder_module, "record_of", vanish)
    report = quick([photos], tmp_path / "out", batch=1)
    assert (report.done, set(report.failed)) == (4, {"p4"})
    assert "p4.png" in report.failed["p4"]


def test_a_full_disk_stops_the_run_and_it_goes_on_later(tmp_path, photos, quick, monkeypatch):
    out, real, count = tmp_path / "out", os.fsync, [0]

    def full(descriptor):
        count[0] += 1
        if count[0] > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="disk is full"):
        quick([photos], out, batch=1)
    monkeypatch.setattr(os, "fsync", real)
    done = len(read_manifest(out)[1])
    assert 0 < done < 5
    assert not list(out.rglob(".saminv-*"))
    report = quick([photos], out, batch=1)
    assert (report.done, report.fresh) == (5, 5 - done)


def test_a_line_that_does_not_fit_leaves_the_manifest_whole(tmp_path, monkeypatch):
    with Manifest.open(tmp_path, {}) as log:
        log.append({"name": "x"})
        before = (tmp_path / "manifest.jsonl").read_bytes()

        def full(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(manifest.os, "fsync", full)
        with pytest.raises(OutputError, match="disk is full"):
            log.append({"name": "y"})
        assert (tmp_path / "manifest.jsonl").read_bytes() == before
        assert list(log.records) == ["x"]


def test_where_memory_runs_out_the_batch_is_halved(tmp_path, photos, quick, monkeypatch):
    real, seen = saminv.Problem.evaluate, []

    def hungry(problem, *arguments):
        seen.append(len(problem))
        if len(problem) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(problem, *arguments)

    monkeypatch.setattr(saminv.Problem, "evaluate", hungry)
    with pytest.warns(UserWarning, match="going on with 2"):
        report = quick([photos], tmp_path / "out", batch=5)
    assert report.done == 5
    assert seen[0] == 5
    assert max(seen[1:]) == 2
    names = [entry["name"] for entry in lines(tmp_path / "out")[1:]]
    assert sorted(names) == [f"p{number}" for number in range(5)], "each once"


def test_a_picture_that_is_too_much_by_itself_is_given_up(tmp_path, photos, quick, monkeypatch):
    def hungry(problem, *arguments):
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(saminv.Problem, "evaluate", hungry)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = quick([photos], tmp_path / "out", batch=4)
    assert len(report.failed) == 5
    assert "memory" in report.failed["p0"]


def test_other_errors_are_not_taken_for_want_of_memory(tmp_path, photos, quick, monkeypatch):
    def broken(problem, *arguments):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(saminv.Problem, "evaluate", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        quick([photos], tmp_path / "out")
    monkeypatch.undo()
    assert quick([photos], tmp_path / "out").done == 5


def test_ctrl_c_keeps_what_has_ended(tmp_path, photos, quick, monkeypatch):
    real, calls = saminv.Problem.evaluate, [0]

    def interrupt(problem, *arguments):
        calls[0] += 1
        if calls[0] == 5:
            raise KeyboardInterrupt
        return real(problem, *arguments)

    monkeypatch.setattr(saminv.Problem, "evaluate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        quick([photos], tmp_path / "out", batch=1)
    assert len(read_manifest(tmp_path / "out")[1]) == 1
    assert quick([photos], tmp_path / "out", batch=1).fresh == 4


def test_a_sequence_goes_from_picture_to_picture(tmp_path, photos, quick, generator):
    out = tmp_path / "out"
    quick([photos], out, sequence=True, limit=3)
    quick([photos], out, sequence=True)
    first, second = (saminv.Solution.load(out / f"results/p{n}.safetensors", generator=generator) for n in (2, 3))
    settings = {"generator": generator, "metric": "mse", "segmenter": "none", "steps": 3, "device": "cpu"}
    again = saminv.invert(photos / "p3.png", ["W+", "F4"], encoder=first, **settings)
    assert torch.equal(again.image, second.image), "it started from the one before, also after a resume"
    with pytest.raises(InputError, match="one worker"):
        quick([photos], out, sequence=True, workers=2)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"workers": True}, {"batch": 1.5}, {"keep": ("pdf",)}, {"keep": ()}])
def test_impossible_numbers_are_refused(tmp_path, photos, quick, wrong):
    with pytest.raises(InputError):
        quick([photos], tmp_path / "out", **wrong)


def test_two_workers_do_what_one_does(tmp_path, photos):
    (photos / "p2.png").write_text("no picture")
    toy = tmp_path / "toy.safetensors"
    save_generator(toy_stylegan2(), toy)
    settings = {**QUICK, "generator": str(toy), "batch": 2}
    one, two = (run([photos], tmp_path / str(n), ["W+"], workers=n, **settings) for n in (1, 2))
    assert (one.done, one.failed) == (two.done, two.failed)
    assert results(tmp_path / "1") == results(tmp_path / "2")
    with pytest.raises(InputError, match="no part"):
        run([photos], tmp_path / "3", ["W+"], workers=2, weights={"nonsense": 1.0}, **settings)


def test_the_stream_asks_for_pictures_only_when_there_is_room(photos, generator):
    recipe = saminv._arguments.make_recipe(
        ["W+"], **{k: v for k, v in QUICK.items() if k != "progress"}, generator=generator
    )
    asked = []

    def items():
        for item in collect([photos]):
            asked.append(item.name)
            yield item

    outcomes = stream(recipe, items(), 2)
    next(outcomes)
    assert len(asked) == 2


SCRIPT = """
import sys
from toys import toy_stylegan2
from saminv.runs import run
run([sys.argv[1]], sys.argv[2], ["W+", "F4"], batch=2, generator=toy_stylegan2(), metric="mse", segmenter="none",
    encoder="mean", device="cpu", steps=40, progress=False)
"""


def test_killed_at_any_moment_it_ends_with_the_same_results(tmp_path, photos, quick):
    for number in range(5, 12):
        picture(photos / f"p{number}.png", number)
    quick([photos], tmp_path / "calm", steps=40, batch=2)
    out, kills = tmp_path / "killed", 0
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(photos), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    for attempt in range(20):
        process = subprocess.Popen(command, env=environment)
        before = len(lines(out)) if (out / "manifest.jsonl").exists() else 0
        while process.poll() is None:
            # After the first result of this attempt, or after one more moment that differs from attempt to attempt.
            if (out / "manifest.jsonl").exists() and (out / "manifest.jsonl").read_bytes().count(b"\n") > max(
                before, 1
            ):
                time.sleep(0.05 * attempt)
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        kills += process.wait() == -signal.SIGKILL
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert kills >= 2
    assert results(out) == results(tmp_path / "calm")
    names = [entry["name"] for entry in lines(out)[1:]]
    assert len(names) == len(set(names)) == 12


def test_a_writer_of_one_s_own(tmp_path, photos, quick):
    seen = {}

    def write(name, solution):
        seen[name] = solution.stats["psnr"].item()
        return {}

    quick([photos], tmp_path, write=write)
    assert sorted(seen) == [f"p{number}" for number in range(5)]


def test_a_name_with_folders_makes_folders(tmp_path, generator):
    picture(tmp_path / "in/a/b.png")
    solution = saminv.invert(
        tmp_path / "in/a/b.png", ["W+"], generator=generator, metric="mse", segmenter="none", encoder="mean", steps=0
    )
    files = SolutionWriter(tmp_path)("a/v1.5", solution)
    assert files == {"solution": "results/a/v1.5.safetensors", "image": "results/a/v1.5.png"}
    assert all((tmp_path / file).is_file() for file in files.values())


def test_each_picture_of_a_run_may_have_its_target(tmp_path, photos, quick, generator):
    (photos / "p2.png").write_text("no picture")
    out = tmp_path / "out"
    options = {"tau": "auto", "target_psnr": 8.0, "segmenter": "slic", "invertibility": "measured"}
    report = quick([photos], out, batch=2, **options)
    assert (report.done, set(report.failed)) == (4, {"p2"})
    for record in read_manifest(out)[1].values():
        if record["status"] != "failed":
            missed = record["metrics"]["target_met"] == 0
            assert missed == (record["metrics"]["psnr"] < 8.0)
            assert any("reaches psnr >= 8" in text for text in record["warnings"]) == missed
    assert quick([photos], out, batch=1, **options).fresh == 0
    with pytest.raises(RunError, match="target"):
        quick([photos], out, **(options | {"target_psnr": 9.0}))


def test_a_search_that_needs_too_much_memory_takes_fewer_at_a_time(tmp_path, photos, quick, monkeypatch):
    real = saminv.Problem.evaluate

    def hungry(problem, *arguments):
        if len(problem) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(problem, *arguments)

    monkeypatch.setattr(saminv.Problem, "evaluate", hungry)
    with pytest.warns(UserWarning, match="going on with 2"):
        report = quick([photos], tmp_path / "out", batch=5, tau="auto", target_psnr=1.0, segmenter="slic")
    assert report.done == 5
    assert sorted(entry["name"] for entry in lines(tmp_path / "out")[1:]) == [f"p{number}" for number in range(5)]

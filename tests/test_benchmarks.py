"""The benchmarks run, go on after an interruption, and write what they say they write."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch

import saminv
from saminv.demo.codes import code_of_factors

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("the benchmarks are not beside the tests", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))
common = importlib.import_module("common")
OF_PERFORMANCE = ("speed", "fewer_steps", "precision", "train_generator")
"""Benchmarks whose tables are on the page of performance."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all, so that the benchmarks share their inversions as they do in earnest."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def single_thread():
    """Benchmarks set the number of threads; give it back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def options_for(folder: Path, **changes) -> common.Options:
    values = {"scenes": 4, "steps": 2, "workers": 1, "out": folder / "out.json", "docs": None}
    return common.Options(**(values | {"cache": folder / "cache", "command": "python benchmarks/x.py"} | changes))


def square(scene: common.Scene, options: common.Options) -> dict:
    return {"square": scene.index**2, "strangers": scene.strangers, "nan": math.nan, "threads": torch.get_num_threads()}


def run_benchmark(name: str, cache: Path, folder: Path, scenes: int = 1, more: Sequence[str] = ()) -> dict:
    """Call a benchmark with a page to put its tables into, and check what all of them promise."""
    page = folder / ("performance.md" if name in OF_PERFORMANCE else "quality.md")
    page.write_text(f"before\n<!-- begin: {name} -->\n(stale)\n<!-- end: {name} -->\nafter\n")
    out = folder / f"{name}.json"
    arguments = ["--scenes", str(scenes), "--steps", "2", "--workers", "1", "--out", str(out)]
    module: ModuleType = importlib.import_module(name)
    module.main([*arguments, "--docs", str(folder), "--cache", str(cache), *more])
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "(stale)" not in text
    assert f"python benchmarks/{name}.py --scenes {scenes}" in text and "| ---: |" in text

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads(out.read_text(), parse_constant=refuse)
    assert content["settings"] == {"scenes": scenes, "steps": 2, "workers": 1}
    assert {"torch", "python", "saminv"} <= set(content["versions"]) and content["machine"]["cores"] > 0
    assert all({"figure", "value", "bar", "met"} <= set(figure) for figure in content["figures"])
    for table in content["tables"]:
        assert table in text
        widths = {line.count("|") for line in table.splitlines()}
        assert len(widths) == 1 and len(table.splitlines()) > 2
    return content


def test_scenes_are_held_out_and_half_have_strangers() -> None:
    scenes = [common.Scene.numbered(index) for index in range(4)]
    masks = [float(scene.batch.stranger_masks.sum()) for scene in scenes]
    assert [mask > 0 for mask in masks] == [True, False, True, False]
    assert torch.equal(scenes[0].clean.batch.factors, scenes[0].batch.factors)
    assert float(scenes[0].clean.batch.stranger_masks.sum()) == 0


def test_an_interrupted_run_goes_on(tmp_path: Path, single_thread, capsys: pytest.CaptureFixture) -> None:
    done: list[int] = []

    def task(scene: common.Scene, options: common.Options) -> dict:
        if scene.index == 2 and len(done) == 2:
            raise KeyboardInterrupt
        done.append(scene.index)
        return square(scene, options)

    options = options_for(tmp_path)
    with pytest.raises(SystemExit) as caught:
        common.run("toy", task, range(4), options)
    assert caught.value.code == 130 and "goes on" in capsys.readouterr().err
    (partial,) = options.cache.glob("toy-*.jsonl")
    partial.write_text(partial.read_text() + '{"scene": 3, "squ')
    done.append(-1)
    records = common.run("toy", task, range(4), options)
    assert done == [0, 1, -1, 2, 3], "finished scenes must not be done again"
    assert [record["square"] for record in records] == [0, 1, 4, 9]
    assert all(record["nan"] is None for record in records)


def test_another_number_of_steps_starts_anew(tmp_path: Path, single_thread) -> None:
    common.run("toy", square, [0], options_for(tmp_path))
    common.run("toy", square, [0], options_for(tmp_path, steps=3))
    assert len(list((tmp_path / "cache").glob("toy-*.jsonl"))) == 2


def test_workers_have_one_thread_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    records = common.run("toy", square, range(3), options_for(tmp_path, workers=2))
    assert [record["square"] for record in records] == [0, 1, 4]
    assert all(record["threads"] == 1 for record in records)


def test_numbers_of_records() -> None:
    records = [{"a": {"b": 1.0}}, {"a": {"b": None}}, {}, {"a": {"b": 3.0}}]
    assert common.values(records, "a", "b") == [1.0, 3.0]
    assert common.median(records, "a", "b") == 2.0
    assert common.median(records, "c") is None
    assert common.ratio(1.0, None) is None and common.ratio(1.0, 0.0) is None and common.ratio(1.0, 2.0) == 0.5


@pytest.mark.parametrize(
    ("value", "bars", "met"),
    [
        (2.0, {"at_least": 2}, True),
        (1.9, {"at_least": 2}, False),
        (0.0, {"at_most": 0}, True),
        (None, {"at_most": 1}, None),
    ],
)
def test_figures_know_their_bars(value: float | None, bars: dict, met: bool | None) -> None:
    assert common.figure("x", value, **bars)["met"] is met
    assert ("**no**" in common.figure_table([common.figure("x", value, **bars)])) is (met is False)


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("nothing here")
    for name in ("page.md", "missing.md"):
        with pytest.raises(SystemExit, match="begin: x"):
            common.insert(tmp_path / name, "x", "text")


@pytest.mark.parametrize("arguments", [["--scenes", "0"], ["--steps", "-1"], ["--workers", "many"]])
def test_impossible_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        common.parse("quality", None, arguments)
    assert caught.value.code == 2


def test_editing(tmp_path: Path, cache: Path, single_thread) -> None:
    content = run_benchmark("editing", cache, tmp_path)
    rows = content["scenes"][0]["rows"]
    assert set(common.METHODS) < set(rows)
    assert rows["W+"]["mean_effect"] > 0.3 > abs(rows["F10"]["mean_effect"])
    assert rows["F10"]["mean_drift"] < rows["F10, skip image not blended"]["mean_drift"]


def test_methods(tmp_path: Path, cache: Path, single_thread) -> None:
    first = run_benchmark("methods", cache, tmp_path, more=["--methods", "sam", "w+"])
    base, sam = first["scenes"]
    assert (base["method"], sam["method"]) == ("w+", "sam") and base["boundaries"] is None
    assert sam["rows"][0]["within"]["mean_drift"] < sam["rows"][0]["mean_drift"]
    assert len(sam["rows"][0]["effect"]) == 6 and base["rows"][0]["seconds"] > 0
    both = run_benchmark("methods", cache, tmp_path, more=["--methods", "gaussian", "--add"])["scenes"]
    assert [record["method"] for record in both] == ["w+", "gaussian", "sam"]
    assert [both[0], both[2]] == [base, sam], "rows of other methods stay"
    with pytest.raises(SystemExit, match="give both the same"):
        run_benchmark("methods", cache, tmp_path, scenes=2, more=["--methods", "w", "--add"])


@pytest.mark.slow
def test_boundaries_from_codes_of_scenes(single_thread) -> None:
    pytest.importorskip("sklearn")
    boundaries = importlib.import_module("boundaries")
    scenes = [common.Scene(index, False) for index in range(16)]
    factors = torch.cat([scene.batch.factors for scene in scenes])
    styles = common.generator().mapping(code_of_factors(factors, common.generator().z_dim))
    images = torch.cat([scene.batch.images for scene in scenes])
    solution = saminv.invert(images, ["W+"], encoder=styles, steps=0, segmenter="none")
    found, still = boundaries.across_boundaries([solution[:8], solution[8:]], scenes), boundaries.unedited(scenes)
    assert found["accuracy"] > 0.7 and 0.5 < found["effect"] < 1.5
    assert found["fid"] < still["fid"]
    assert boundaries.across_boundaries([solution[:4]], scenes[:4]) is None


def test_batches_hold_each_scene_once() -> None:
    batches = [common.scenes_of_batch(k, 8, 21) for k in common.batches_of(8, 21)]
    assert sorted(scene.index for batch in batches for scene in batch) == list(range(21))
    assert all(len({scene.strangers for scene in batch}) == 1 and len(batch) <= 8 for batch in batches)


def test_formulations_default_is_the_default_of_invert(tmp_path: Path, cache: Path, single_thread) -> None:
    formulations = importlib.import_module("formulations")
    options, scene = options_for(tmp_path, cache=cache), common.Scene.numbered(0)
    mine = formulations.solve_variant(scene, formulations.VARIANTS["default"], options)
    # Said, because shorter runs have another default.
    given = common.invert(scene, common.SAM, options, rate=formulations.DEFAULT_RATE)
    assert torch.equal(mine.image, given.image) and torch.equal(mine.regions.labels, given.regions.labels)
    published = {"formulation": "published", "tap_point": "block"}
    mine = formulations.solve_variant(scene, formulations.VARIANTS["all as published"], options)
    assert torch.equal(mine.image, common.invert(scene, common.SAM, options, **published).image)


def test_tau_sweep(tmp_path: Path, cache: Path, single_thread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("tau_sweep"), "TAUS", (0.1, 0.3))
    content = run_benchmark("tau_sweep", cache, tmp_path)
    assert (tmp_path / "pictures" / "tau-curve.png").stat().st_size > 1000
    assert set(content["scenes"][0]["taus"]) == {"0.1", "0.3"}


@pytest.mark.slow
def test_quality(tmp_path: Path, cache: Path, single_thread) -> None:
    content = run_benchmark("quality", cache, tmp_path, scenes=2)
    strange, clean = content["scenes"]
    assert {"W", "F10", "SAM", "strangers pasted"} < set(strange["rows"]) and set(clean["rows"]) == {"in-domain"}
    assert strange["rows"]["strangers pasted"]["psnr"] > strange["rows"]["W+"]["psnr"]
    assert 0 <= strange["agreement"][0] <= strange["agreement"][1]


@pytest.mark.slow
def test_formulations(tmp_path: Path, cache: Path, single_thread) -> None:
    content = run_benchmark("formulations", cache, tmp_path)
    assert len(content["scenes"][0]["rows"]) == 6


@pytest.mark.slow
def test_speed(tmp_path: Path, cache: Path) -> None:
    content = run_benchmark("speed", cache, tmp_path)
    for record in content["scenes"]:
        assert 0 < record["loaded_gib"] <= record["peak_gib"]
        steps = sum(record["step_ms"].values()) * 2 / 1000 + sum(record["once_seconds"].values())
        assert steps == pytest.approx(record["seconds"], rel=1e-6), "the parts must add up to the whole"


def test_invertibility(tmp_path: Path, cache: Path, single_thread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("invertibility"), "BUILD_STEPS", 2)
    content = run_benchmark("invertibility", cache, tmp_path, scenes=2)
    [chunk] = content["scenes"]
    assert [scene["scene"] for scene in chunk["scenes"]] == [0]
    assert set(chunk["scenes"][0]) > {"measured", "predicted", "oracle", "pixels", "classes", "no regulariser"}
    assert len(chunk["segments"]["levels"][0]) == len(chunk["segments"]["truth"]["W+"])


@pytest.mark.slow
def test_targets(tmp_path: Path, cache: Path, single_thread) -> None:
    content = run_benchmark("targets", cache, tmp_path, scenes=2)
    [chunk] = content["scenes"]
    assert len(chunk["sweep"]["psnr"]) == 14
    assert len(chunk["search"]["met"]) == 1


@pytest.mark.slow
def test_padding(tmp_path: Path, cache: Path, single_thread) -> None:
    content = run_benchmark("padding", cache, tmp_path, scenes=4)
    strangers = [record["strangers"] for record in content["scenes"] if "strangers" in record]
    assert len(content["scenes"]) == 4 and len(strangers) == 2
    assert {"W+", "+ P0, 1, 3, 5, 7, 9", "FS4", "FS7"} <= set(strangers[0])
    assert "mixing" in strangers[0]["FS5"] and "mixing" not in strangers[0]["W+"]


@pytest.mark.slow
def test_directions(tmp_path: Path, cache: Path, single_thread, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    module = importlib.import_module("directions")
    for name, value in {"JUDGED": 400, "FITTED": 40, "HELD_OUT": 16, "FEATURES": 16, "COUNT": 3, "DRAWS": 2}.items():
        monkeypatch.setattr(module, name, value)
    content = run_benchmark("directions", cache, tmp_path)
    found, fitted = content["scenes"][:4], content["scenes"][4]
    assert [record["count"] for record in found] == [3, 3, 9, 9]
    assert all(0 <= r <= 1 for record in found for r in record["r"].values())
    assert found[0]["r"]["car_x"] > 0.9 and abs(found[0]["moved"]["car_x"]) > 0.1
    assert {"facing", "headlights"} <= set(fitted) and 0 <= fitted["facing"]["read"] <= 1


def test_pair_edits(tmp_path: Path, cache: Path, single_thread) -> None:
    [chunk] = run_benchmark("pair_edits", cache, tmp_path, scenes=2)["scenes"]
    assert len(chunk["car_hue"]["outside"]["P"]) == 2
    assert chunk["car_x"]["chosen"] in ("W+", "P")


@pytest.mark.slow
def test_starts(tmp_path: Path, cache: Path, single_thread) -> None:
    content = run_benchmark("starts", cache, tmp_path, scenes=2)
    assert set(content["scenes"][0]["nearest"]) == {"50", "100", "150"}


@pytest.mark.slow
def test_fewer_steps(tmp_path: Path, cache: Path, single_thread) -> None:
    [chunk] = run_benchmark("fewer_steps", cache, tmp_path, scenes=2)["scenes"]
    assert {"Adam, published", "default", "coarse to fine", "L-BFGS", "Adam, then L-BFGS"} < set(chunk["psnr"])
    assert all(len(psnr) == 2 for by_steps in chunk["psnr"].values() for psnr in by_steps.values())


@pytest.mark.slow
def test_precision(tmp_path: Path, cache: Path, single_thread) -> None:
    [record] = run_benchmark("precision", cache, tmp_path)["scenes"]
    strict, fast = record["fp32, step by step"], record["half precision, replayed"]
    assert strict["psnr"] == pytest.approx(fast["psnr"], abs=0.5) and strict != fast


def test_train_generator(tmp_path: Path, cache: Path, single_thread) -> None:
    content = run_benchmark("train_generator", cache, tmp_path, scenes=4)
    assert [row["step"] for row in content["scenes"]] == [1, 2]
    assert all(row["score"] > 0 and row["images_per_second"] > 0 for row in content["scenes"])
    assert (tmp_path / "pictures/train_generator_samples.png").exists()


def test_falling_scores() -> None:
    falling = importlib.import_module("train_generator").falling
    part, order = falling([10.0, 11.0, 9.0, 7.0, 8.0, 5.0, 4.0, 4.5])
    assert part["value"] == pytest.approx(4.25 / 10.5) and part["met"] and order["value"] < -0.9 and order["met"]
    part, order = falling([12.0, 10.8, 10.0, 13.5, 10.8, 9.5, 10.1, 12.1])
    assert part["met"] is False and order["met"] is False
    assert [figure["value"] for figure in falling([1.0, 2.0])] == [None, None]


def test_encoders(tmp_path: Path, cache: Path, single_thread, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("encoders")
    monkeypatch.setattr(module, "PLAIN_FILE", tmp_path / "none")
    if not module.shipped(module.ALONE):
        with pytest.raises(SystemExit, match="No encoder comes with this version"):
            run_benchmark("encoders", cache, tmp_path)
        pytest.skip("no encoder is bundled: there is none in saminv/weights")
    [scene] = run_benchmark("encoders", cache, tmp_path)["scenes"]
    assert scene["strangers"]["alone"].keys() == module.shipped(module.ALONE).keys()
    assert scene["strangers"]["starts"].keys() == module.there(module.WARM).keys()


@pytest.mark.slow
def test_encoder_ablations(tmp_path: Path, single_thread, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("encoder_ablations")
    for name in ("PADINV", "STYLE"):
        titles = getattr(module, name)
        wanted = ("plain", "padinv-p0", "feature-style-b")
        monkeypatch.setattr(module, name, {key: title for key, title in titles.items() if key in wanted})
    changes = {"batch": 2, "validation": 2}
    monkeypatch.setattr(module.train_encoders, "COMMON", module.train_encoders.COMMON | changes)
    cache = tmp_path / "cache"
    content = run_benchmark("encoder_ablations", cache, tmp_path)
    assert [record["training"] for record in content["scenes"]] == ["plain", "padinv-p0", "feature-style-b"]
    assert all(record["rows"][0]["strangers"]["psnr"] > 0 for record in content["scenes"])
    gain = content["figures"][0]["value"]
    plain, padded = (record["rows"][0]["strangers"]["psnr"] for record in content["scenes"][:2])
    assert gain == pytest.approx(padded - plain)
    # Trainings that have ended are kept, and so is what was measured.
    monkeypatch.setattr("saminv.train.loop.Trainer.descend", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(module.saminv, "invert", lambda *_, **__: pytest.fail("measured again"))
    assert run_benchmark("encoder_ablations", cache, tmp_path)["scenes"] == content["scenes"]


@pytest.mark.slow
def test_folder_runs(tmp_path: Path) -> None:
    folder_runs = importlib.import_module("folder_runs")
    out = tmp_path / "out.json"
    arguments = ["--scenes", "6", "--steps", "2", "--workers", "1", "--kills", "2", "--out", str(out)]
    folder_runs.main([*arguments, "--cache", str(tmp_path / "cache")])
    [record] = json.loads(out.read_text())["scenes"]
    # A run this short may end before its second kill.
    assert record["kills"] >= 1
    assert (record["lost"], record["twice"], record["same_files"]) == (0, 0, True)

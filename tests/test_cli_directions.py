"""``saminv directions`` and what ``saminv edit`` does with several of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import toy_stylegan2

from saminv import Solution, cli, images
from saminv.editing import DirectionSet
from saminv.editing.strips import sample_solution
from saminv.generators import save_generator
from saminv.regions import Regions


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_generator(toy_stylegan2(), tmp_path_factory.mktemp("generator") / "toy.safetensors")


@pytest.fixture(scope="module")
def solution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_solution(toy_stylegan2(), 1).save(tmp_path_factory.mktemp("solution") / "car.safetensors")


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def test_find_list_and_show(generator, tmp_path, capsys) -> None:
    own = ["--generator", generator]
    assert run("directions", "list", *own) == 0
    assert capsys.readouterr().out.startswith("none; saminv directions find sefa")
    assert run("directions", "find", "sefa", *own, "--count", 3, "--layers", "0-1") == 0
    out = capsys.readouterr().out
    assert "sefa/2" in out and "eigenvalue" in out and Path(out.split()[-1]).is_file()
    assert run("directions", "find", "ganspace", *own, "--count", 2, "--site", "F2", "--samples", 40) == 0
    capsys.readouterr()
    assert run("directions", "list", *own) == 0
    out = capsys.readouterr().out
    assert "sefa (sefa, style slots 0-1)" in out and "ganspace-F2 (ganspace, style slots 0-7)" in out
    assert run("directions", "list", *own, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bundled"] == [] and [found["method"] for found in report["sets"]] == ["ganspace", "sefa"]
    assert report["sets"][0]["settings"] == {"site": "F2", "samples": 40, "seed": 0}
    picture = tmp_path / "new" / "strip.png"
    assert run("directions", "show", *own, "sefa/0", "sefa/1@1", "--strength", -2, 2, "--out", picture) == 0
    assert images.load(picture).size[1] < images.load(picture).size[0]
    assert run("info", *own, "--json") == 0
    assert "sefa/0" in capsys.readouterr().out


def test_directions_by_scores(generator, tmp_path, capsys) -> None:
    own = ["--generator", generator]
    samples = tmp_path / "samples"
    assert run("directions", "find", "regression", *own, "--samples", 60, "--write-samples", samples) == 0
    pictures = sorted(samples.iterdir())
    assert len(pictures) == 60 and "row k of --scores belongs to picture k" in capsys.readouterr().out
    bright = [float(images.load(path).tensor.mean()) for path in pictures]
    (tmp_path / "scores.csv").write_text("bright\n" + "\n".join(map(str, bright)))
    np.save(tmp_path / "scores.npy", np.array(bright))
    np.savez(tmp_path / "scores.npz", bright=np.array(bright))
    words = ["directions", "find", "regression", *own]
    rows = []
    for suffix, name in ((".csv", "bright"), (".npy", "0"), (".npz", "bright")):
        out = tmp_path / f"set{suffix}.safetensors"
        assert run(*words, "--scores", tmp_path / f"scores{suffix}", "--out", out) == 0
        rows.append(DirectionSet.load(out)[name].styles)
        assert f"regression/{name}" in capsys.readouterr().out
    assert np.allclose(rows[0], rows[1], atol=1e-6) and np.allclose(rows[0], rows[2], atol=1e-6)
    (tmp_path / "bad.csv").write_text("bright\nyes\n")
    for more, said in (
        ([], "needs either --scores FILE or --factors"),
        (["--scores", tmp_path / "bad.csv"], "holds no scores"),
        (["--scores", tmp_path / "gone.npy"], "holds no scores"),
        (["--factors", "beauty"], "the demo's factors are car_x"),
    ):
        assert run(*words, *more) == 2
        assert said in capsys.readouterr().err


def test_boundaries_by_the_command(generator, tmp_path, capsys) -> None:
    pytest.importorskip("sklearn")
    table = np.random.default_rng(0).normal(size=(80, 2))
    np.savez(tmp_path / "scores.npz", a=table[:, 0], b=table[:, 1])
    words = ["directions", "find", "interfacegan", "--generator", generator, "--scores", tmp_path / "scores.npz"]
    assert run(*words, "--condition", "a=b", "--name", "mine") == 0
    assert "mine/a" in capsys.readouterr().out
    assert run(*words, "--condition", "a") == 2
    assert "is no A=B,C" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sefa", "--site", "F4"], "--site has no effect on sefa; it is for ganspace"),
        (["sefa", "--samples", 9], "--samples has no effect on sefa"),
        (["ganspace", "--whiten"], "--whiten has no effect on ganspace; it is for sefa"),
        (["regression", "--condition", "a=b"], "--condition has no effect on regression; it is for interfacegan"),
        (["text", "--text", "a", "b", "--layers", "0-1"], "--layers has no effect on text"),
        (["sefa", "--write-samples", "x"], "is for interfacegan and regression"),
    ],
)
def test_options_of_other_methods_are_refused(words, said, generator, capsys) -> None:
    assert run("directions", "find", *words, "--generator", generator) == 2
    assert said in capsys.readouterr().err


def test_scores_of_other_samples_are_refused(generator, tmp_path, capsys) -> None:
    np.save(tmp_path / "scores.npy", np.arange(20.0))
    words = ["directions", "find", "regression", "--generator", generator, "--scores", tmp_path / "scores.npy"]
    assert run(*words, "--samples", 50) == 2
    assert "has 20 rows for 50 samples; leave --samples out" in capsys.readouterr().err


def test_a_set_is_shown_whole(generator, tmp_path, capsys) -> None:
    own, heights = ["--generator", generator], []
    assert run("directions", "find", "sefa", *own, "--count", 3, "--whiten") == 0
    assert "sefa-whitened/2" in capsys.readouterr().out
    for name in ("sefa-whitened", "sefa-whitened/0"):
        words = ["--strength", -1, 0, 1, "--safe", "--keep", "mse=0.01", "--out", tmp_path / "shown.png"]
        assert run("directions", "show", name, *own, *words) == 0
        heights.append(images.load(tmp_path / "shown.png").size[0])
    assert heights[0] > 2.5 * heights[1]
    assert run("directions", "show", *own, "--keep", "mse=0.01", "--out", tmp_path / "shown.png") == 2
    assert "add --safe" in capsys.readouterr().err


def test_text_needs_texts(generator, capsys) -> None:
    assert run("directions", "find", "text", "--generator", generator) == 2
    assert '--text "a red car" "a car"' in capsys.readouterr().err


def test_nothing_to_show(generator, capsys) -> None:
    assert run("directions", "show", "--generator", generator) == 2
    assert "No direction is known" in capsys.readouterr().err


def test_several_directions_one_by_one_and_together(generator, solution, tmp_path, capsys) -> None:
    own = ["--generator", generator]
    assert run("directions", "find", "sefa", *own, "--count", 2) == 0
    capsys.readouterr()
    words = ["edit", solution, *own, "--out", tmp_path, "--strength", -1, 1]
    assert run(*words, "--direction", "sefa/0", "sefa/1") == 0
    names = [f"car-sefa-{k}{s}.png" for k in (0, 1) for s in ("-1", "+1")]
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in names]
    assert run(*words, "--together", "--direction", "sefa/0", "sefa/1=-0.5", "--safe") == 0
    names = [f"car-sefa-0+sefa-1=-0.5{s}.png" for s in ("-1", "+1")]
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in names]
    assert run(*words, "--together", "--direction", "sefa/0", "sefa/0=2") == 2
    assert "twice" in capsys.readouterr().err
    assert run(*words, "--together", "--direction", "sefa/0=much") == 2
    assert "no NAME=SHARE" in capsys.readouterr().err


def test_edits_that_will_be_weak_are_announced(generator, solution, tmp_path, capsys) -> None:
    whole = Solution.load(solution, generator=toy_stylegan2())
    late = replace(whole, regions=Regions.uniform(1, (32, 32), ["W+", "F4"], "F4")).save(tmp_path / "late.safetensors")
    np.save(tmp_path / "age.npy", np.ones((1, 12), dtype=np.float32))
    words = ["--generator", generator, "--direction", tmp_path / "age.npy", "--out", tmp_path / "age.png"]
    for file, said in ((solution, ""), (late, "warning: 0% of sample 0.0 lies in W+")):
        assert run("edit", file, *words) == 0
        err = capsys.readouterr().err
        assert said in err and bool(err) == bool(said)


def test_strips_and_animations(generator, solution, tmp_path, capsys) -> None:
    own = ["--generator", generator]
    assert run("directions", "find", "sefa", *own, "--count", 2) == 0
    capsys.readouterr()
    words = ["edit", solution, *own, "--direction", "sefa/0", "sefa/1", "--strength", -1, 1]
    files = [tmp_path / "a" / "strip.png", tmp_path / "b" / "move.gif"]
    assert run(*words, "--strip", files[0], "--animation", files[1], "--frames", 3) == 0
    assert capsys.readouterr().out.split() == [str(file) for file in files]
    with Image.open(files[1]) as found:
        assert found.n_frames == 12
    narrow = images.load(files[0]).size[1]
    assert run(*words[:-3], "--strip", files[0], "--animation", files[1], "--frames", 2) == 0
    assert images.load(files[0]).size[1] > 2 * narrow
    with Image.open(files[1]) as found:
        assert found.n_frames == 8
    capsys.readouterr()
    assert run(*words, "--strip", files[0], "--out", tmp_path) == 2
    assert "name their own files" in capsys.readouterr().err
    assert run(*words, "--within", "car", "shadow", "--strip", files[0]) == 2
    assert "has no segments" in capsys.readouterr().err

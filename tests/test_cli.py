"""The command: files, tables, JSON, exit codes, and one line for everything that goes wrong."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys import toy_stylegan2

import saminv
from saminv import cli, images
from saminv.cli.options import inversion_settings
from saminv.demo import report
from saminv.generators import save_generator
from saminv.optim import Problem

SENTENCE = saminv.Status.COMPLETED.sentence


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_generator(toy_stylegan2(), tmp_path_factory.mktemp("generator") / "toy.safetensors")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = np.random.default_rng(0)
    pixels = np.kron(source.integers(0, 256, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def direction(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("directions") / "older.npy"
    np.save(path, np.linspace(-1, 1, 12, dtype=np.float32))
    return path


@pytest.fixture(scope="module")
def quick(generator: Path) -> list[str]:
    """Options that make an inversion take no time."""
    words = "--metric mse --encoder mean --segmenter none --device cpu --steps 2 --spaces W+ F4"
    return ["--generator", str(generator), *words.split()]


@pytest.fixture(scope="module")
def inverted(photo: Path, quick: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of one picture."""
    folder = tmp_path_factory.mktemp("inverted")
    with contextlib.redirect_stdout(None):
        assert cli.main(["invert", str(photo), *quick, "--out", str(folder)]) == 0
    return folder


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def one_line(text: str) -> str:
    """The message on the standard error, after making sure that it is one line."""
    assert text.startswith("saminv: ") and text.count("\n") == 1 and text.endswith("\n"), text
    return text


def test_invert_writes_its_files_and_a_table(photo, quick, tmp_path, capsys) -> None:
    out = tmp_path / "new" / "folder"
    assert run("invert", photo, *quick, "--out", out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["photo-sheet.png", "photo.png", "photo.safetensors"]
    told = capsys.readouterr()
    head, line = told.out.splitlines()
    assert head.split() == ["name", "PSNR", "dB", "SSIM", "perceptual", "W+", "F4", "status"]
    assert line.startswith("photo ") and line.endswith(SENTENCE)
    assert told.err == ""
    assert images.load(out / "photo.png").size == (32, 32)


def test_solution_file_and_picture_agree(inverted, generator) -> None:
    solution = saminv.Solution.load(inverted / "photo.safetensors", generator=generator)
    assert solution.provenance["names"] == ["photo"] and len(solution) == 1
    shown = images.load(inverted / "photo.png").tensor
    assert (shown - solution.image.clamp(-1, 1)).abs().max() <= 1 / 255


def test_json_is_all_that_stdout_holds(photo, quick, tmp_path, capsys) -> None:
    assert run("invert", photo, *quick, "--tau", 0, "--out", tmp_path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    [image] = found["images"]
    assert found["settings"]["tau"] == 0 and found["settings"]["steps"] == 2 and not found["interrupted"]
    assert image["status"] == "completed" and image["sentence"] == SENTENCE
    assert set(image["shares"]) == {"W+", "F4"} and image["stats"]["psnr"] == image["psnr"]
    assert {Path(file).name for file in image["files"].values()} == {path.name for path in tmp_path.iterdir()}


def test_names_do_not_collide_and_small_batches_agree(photo, quick, tmp_path, capsys) -> None:
    same, sheet = tmp_path / "photo.png", tmp_path / "photo-sheet.png"
    for path in (same, sheet):
        images.save(path, -images.load(photo).tensor)
    pictures, found = (photo, same, sheet), []
    for batch in (1, 3):
        out = tmp_path / f"out{batch}"
        assert run("invert", *pictures, *quick, "--batch", batch, "--out", out, "--json") == 0
        found.append(json.loads(capsys.readouterr().out)["images"])
    names = ["photo", "photo-2", "photo-sheet-2"]
    assert [row["name"] for row in found[0]] == [row["name"] for row in found[1]] == names
    assert len(list((tmp_path / "out1").iterdir())) == 9
    assert [a["psnr"] for a in found[0]] == pytest.approx([b["psnr"] for b in found[1]], abs=1e-3)
    assert found[0][1]["psnr"] == pytest.approx(found[0][2]["psnr"], abs=1e-3)


def test_inputs_are_not_overwritten(photo, quick, capsys) -> None:
    before = photo.read_bytes()
    assert run("invert", photo, *quick, "--out", photo.parent) == 2
    assert "overwrite" in one_line(capsys.readouterr().err)
    assert photo.read_bytes() == before


def test_paste_back_has_the_size_of_the_picture(photo, quick, tmp_path) -> None:
    assert run("invert", photo, *quick, "--fit", "letterbox", "--paste-back", "--out", tmp_path) == 0
    assert images.load(tmp_path / "photo-pasted.png").size == (48, 64)


def test_zero_steps_write_the_start(photo, quick, tmp_path, capsys) -> None:
    assert run("invert", photo, *quick, "--steps", 0, "--out", tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["images"][0]["steps"] == 0


def test_given_maps_regions_and_segments(photo, quick, tmp_path, capsys) -> None:
    left = np.tile(np.arange(32) < 16, (32, 1))
    np.savez(tmp_path / "maps.npz", **{"W+": np.where(left, 1.0, 0.0), "F4": np.zeros((32, 32))})
    Image.fromarray(left.astype(np.uint8)).save(tmp_path / "labels.png")
    for given in ("maps.npz", "labels.png"):
        words = ["--invertibility", tmp_path / given, "--segmenter", tmp_path / "labels.png"]
        assert run("invert", photo, *quick, *words, "--out", tmp_path / "out", "--json") == 0
        assert json.loads(capsys.readouterr().out)["images"][0]["shares"] == {"W+": 0.5, "F4": 0.5}


def test_another_solution_as_start(photo, quick, inverted, tmp_path, capsys) -> None:
    start = inverted / "photo.safetensors"
    assert run("invert", photo, *quick, "--encoder", start, "--steps", 0, "--out", tmp_path, "--json") == 0
    header = json.loads(capsys.readouterr().out)["images"][0]
    assert run("info", start, "--json") == 0
    assert header["psnr"] == pytest.approx(json.loads(capsys.readouterr().out)["images"][0]["psnr"], abs=1e-3)
    assert run("invert", photo, photo, *quick, "--encoder", start, "--out", tmp_path) == 2
    assert "needs as many" in one_line(capsys.readouterr().err)


def bad_inputs(folder: Path) -> dict[str, list]:
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(folder / "tiny.png")
    return {
        "missing.png": [folder / "missing.png"],
        "is a folder": [folder],
        "empty.png is empty": [folder / "empty.png"],
        "text.png": [folder / "text.png"],
        "at least": [folder / "tiny.png"],
    }


@pytest.mark.parametrize("what", ["missing.png", "is a folder", "empty.png is empty", "text.png", "at least"])
def test_bad_pictures_are_named_before_any_work(what, photo, quick, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(cli.invert, "invert", lambda *_, **__: pytest.fail("work has begun"))
    [bad] = bad_inputs(tmp_path)[what]
    assert run("invert", photo, bad, *quick, "--out", tmp_path / "out") == 2
    assert what in one_line(capsys.readouterr().err)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("--spaces W+ F99", "F99"),
        ("--spaces W W+", "both set the site"),
        ("--tau nan", "tau"),
        ("--tau -1", "tau"),
        ("--steps -3", "steps"),
        ("--segmenter nothing", "nothing"),
        ("--segmenter labels", "label image"),
        ("--segmenter gone.png", "gone.png"),
        ("--invertibility gone.npz", "gone.npz"),
        ("--invertibility guessed", "guessed"),
        ("--metric nothing", "nothing"),
        ("--encoder nothing", "nothing"),
        ("--encoder gone.safetensors", "gone.safetensors"),
        ("--generator nothing", "Unknown generator 'nothing'. Known: biggan-deep-128"),
        ("--generator gone.safetensors", "gone.safetensors"),
        ("--label one", "--label"),
        ("--rate 0", "rate"),
        ("--device tpu9", "tpu9"),
    ],
)
def test_bad_options_exit_with_2_and_one_line(words, what, photo, quick, tmp_path, capsys) -> None:
    assert run("invert", photo, *quick, *words.split(), "--out", tmp_path) == 2
    assert what in one_line(capsys.readouterr().err)


def test_unwritable_output_is_noticed_first(photo, quick, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(cli.invert, "invert", lambda *_, **__: pytest.fail("work has begun"))
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert run("invert", photo, *quick, "--out", out) == 1
        assert "output folder" in one_line(capsys.readouterr().err)


def test_unexpected_errors_are_one_line_unless_debugging(photo, quick, tmp_path, capsys, monkeypatch) -> None:
    def fails(*_, **__):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(cli.invert, "invert", fails)
    assert run("invert", photo, *quick, "--out", tmp_path) == 1
    assert "RuntimeError: two lines" in one_line(capsys.readouterr().err)
    with pytest.raises(RuntimeError):
        run("invert", photo, *quick, "--out", tmp_path, "--debug")


def test_warnings_are_one_line_each(photo, quick, tmp_path, capsys, monkeypatch) -> None:
    solve = cli.invert.invert

    def warns(*positional, **named):
        warnings.warn("this\nlooks odd", stacklevel=1)
        return solve(*positional, **named)

    monkeypatch.setattr(cli.invert, "invert", warns)
    assert run("invert", photo, *quick, "--out", tmp_path) == 0
    assert one_line(capsys.readouterr().err) == "saminv: warning: this looks odd\n"


@pytest.mark.parametrize(
    ("words", "tau"),
    [
        ([], None),
        (["--tau", "0.3"], 0.3),
        (["--tau=0.3"], 0.3),
        (["--tau", "auto", "--target-psnr", "25"], "auto"),
        (["--tau", "car=0.4", "*=0.25"], {"car": 0.4, "*": 0.25}),
        (["--tau=car=0.4", "a=b=1e-1", "--steps", "3"], {"car": 0.4, "a=b": 0.1}),
        (["--tau", "traffic light=1"], {"traffic light": 1.0}),
    ],
)
def test_forms_of_tau(words, tau) -> None:
    # What comes after the thresholds and is none is a picture.
    for picture in ("a.png", "x=0.png"):
        arguments = cli._parser().parse_args(["invert", *words, picture])
        assert arguments.tau == tau and arguments.image == [Path(picture)]


def test_targets_are_passed_on_only_if_given() -> None:
    parse = cli._parser().parse_args
    assert not {"target_psnr", "target_lpips"} & set(inversion_settings(parse(["invert", "a.png"])))
    found = inversion_settings(parse(["invert", "a.png", "--tau", "auto", "--target-lpips", "0.2"]))
    assert (found["tau"], found["target_lpips"]) == ("auto", 0.2) and "target_psnr" not in found


@pytest.mark.parametrize("word", ["auto", "measured", "predicted", "trained.safetensors"])
def test_words_of_invertibility_pass_through(word) -> None:
    arguments = cli._parser().parse_args(["invert", "a.png", "--invertibility", word])
    assert inversion_settings(arguments)["invertibility"] == word


def test_losses_weights_and_rates_of_spaces() -> None:
    words = ["--loss", "multi-scale", "--loss", "shape=mse", "--weight", "l2=2", "--weight", "shape=.5"]
    arguments = cli._parser().parse_args(["invert", "a.png", *words, "--rate-of", "P=0.2"])
    found = inversion_settings(arguments)
    assert {name: loss.name for name, loss in found["losses"].items()} == {"perceptual": "demo-x3", "shape": "mse"}
    assert (found["weights"], found["rates"]) == ({"l2": 2.0, "shape": 0.5}, {"P": 0.2})
    plain = inversion_settings(cli._parser().parse_args(["invert", "a.png"]))
    assert not plain["losses"] and not plain["weights"] and not plain["rates"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--loss", "scales"], "multi-scale, identity=FILE"),
        (["--loss", "multi-scale=x"], "Unknown metric"),
        (["--loss", "identity=none.pth"], "none.pth"),
        (["--weight", "l3=1"], "The objective has no part l3"),
        (["--rate-of", "Q=1"], "rates must map spaces"),
    ],
)
def test_bad_losses_weights_and_rates(words, reason, photo, quick, tmp_path, capsys) -> None:
    assert cli.main(["invert", str(photo), *quick, *words, "--out", str(tmp_path)]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--weight", "--rate-of"])
@pytest.mark.parametrize("word", ["l2", "=1", "l2=", "l2=nan", "l2=x"])
def test_what_is_no_number_by_name(option, word, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["invert", "a.png", option, word])
    assert caught.value.code == 2 and "is no NAME=NUMBER" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--tau", "x"], ["--tau", "=1"], ["--tau", "a=x"], ["--tau", "a=1", "a=2"]])
def test_what_is_no_tau(words, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["invert", "a.png", *words])
    assert caught.value.code == 2 and "argument --tau" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["nothing"], ["invert"], ["invert", "a.png", "--steps", "many"], ["edit", "a"]])
def test_wrong_usage_exits_with_2(words, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2 and "usage: saminv" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["demo"], ["invert"], ["run"], ["summarise"], ["edit"], ["info"]])
def test_help_states_the_exit_codes(words, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([*words, "--help"])
    assert caught.value.code == 0 and "130  interrupted" in capsys.readouterr().out


def test_version(capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0 and capsys.readouterr().out == f"saminv {saminv.__version__}\n"


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come at a step of a solve, counted from 0."""
    evaluate, calls = Problem.evaluate, []

    def interrupted(self, *arguments):
        calls.append(arguments)
        if len(calls) == step + 1:
            raise KeyboardInterrupt
        return evaluate(self, *arguments)

    monkeypatch.setattr(Problem, "evaluate", interrupted)


def test_ctrl_c_saves_what_there_is(photo, quick, generator, tmp_path, capsys, monkeypatch) -> None:
    interrupt_at(3, monkeypatch)
    words = ["--steps", 50, "--batch", 1, "--out", tmp_path, "--json"]
    assert run("invert", photo, photo, *quick, *words) == 130
    found = json.loads(capsys.readouterr().out)
    assert found["interrupted"] and [row["status"] for row in found["images"]] == ["interrupted"]
    assert found["images"][0]["steps"] == 3
    solution = saminv.Solution.load(tmp_path / "photo.safetensors", generator=generator)
    assert solution.statuses == [saminv.Status.INTERRUPTED]


def test_ctrl_c_elsewhere_leaves_no_traceback(photo, quick, tmp_path, capsys, monkeypatch) -> None:
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.invert, "invert", interrupted)
    assert run("invert", photo, *quick, "--out", tmp_path) == 130
    assert one_line(capsys.readouterr().err) == "saminv: interrupted\n"


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_a_real_ctrl_c(photo, quick, tmp_path) -> None:
    words = [str(word) for word in ("invert", photo, *quick, "--steps", 1_000_000, "--tau", 100, "--out", tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # A signal that is ignored by the parent would be by the child as well.
    restore = f"import signal, sys; signal.signal({signal.SIGINT:d}, signal.default_int_handler); "
    code = (
        restore
        + "from saminv.optim import Problem; e = Problem.evaluate; n = []; "
        + (
            "Problem.evaluate = lambda *a: (n.append(0), len(n) == 20 and print('solving', flush=True), e(*a))[2]; "
            "from saminv.cli import main; sys.exit(main(sys.argv[1:]))"
        )
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, *words], env=environment, text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "solving\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        told, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and errors == ""
    assert saminv.Status.INTERRUPTED.sentence in told and (tmp_path / "photo.safetensors").is_file()


def test_edit_writes_one_picture_per_strength(inverted, generator, direction, tmp_path, capsys) -> None:
    words = ["--generator", generator, "--direction", direction, "--strength", -1, 0, 1.5, "--out", tmp_path]
    assert run("edit", inverted / "photo.safetensors", *words) == 0
    files = [tmp_path / f"photo-older{strength}.png" for strength in ("-1", "+0", "+1.5")]
    assert capsys.readouterr().out.split() == [str(file) for file in files]
    less, same, more = (images.load(file).tensor for file in files)
    reconstruction = images.load(inverted / "photo.png").tensor
    assert (same - reconstruction).abs().max() <= 1 / 127
    assert (less - reconstruction).abs().max() > 0.02 < (more - less).abs().max()


def test_edit_to_a_file_and_beside_the_solution(inverted, generator, direction, tmp_path, capsys) -> None:
    solution = tmp_path / "mine.safetensors"
    solution.write_bytes((inverted / "photo.safetensors").read_bytes())
    words = ["--generator", generator, "--direction", direction]
    assert run("edit", solution, *words, "--out", tmp_path / "sub" / "one.jpg") == 0
    assert run("edit", solution, *words) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"mine.safetensors", "sub", "mine-older+1.png"}
    assert run("edit", solution, *words, "--strength", 1, 2, "--out", tmp_path / "two.png") == 2
    assert "name a folder" in one_line(capsys.readouterr().err)


def test_edit_back_into_the_photograph(photo, inverted, generator, direction, tmp_path, capsys) -> None:
    words = ["--generator", generator, "--direction", direction, "--out", tmp_path / "whole.png"]
    assert run("edit", inverted / "photo.safetensors", *words, "--paste-back", photo) == 0
    assert images.load(tmp_path / "whole.png").size == (48, 64)
    images.save(tmp_path / "other.png", torch.zeros(3, 20, 20))
    assert run("edit", inverted / "photo.safetensors", *words, "--paste-back", tmp_path / "other.png") == 2
    assert "original" in one_line(capsys.readouterr().err)


def test_edit_refuses_what_does_not_fit(inverted, generator, direction, tmp_path, capsys) -> None:
    solution, words = inverted / "photo.safetensors", ["--generator", generator, "--direction"]
    assert run("edit", solution, *words, "nothing", "--out", tmp_path) == 2
    assert "nothing" in one_line(capsys.readouterr().err)
    assert run("edit", solution, *words, direction, "--strength", "inf", "--out", tmp_path) == 2
    assert "finite" in one_line(capsys.readouterr().err)
    assert run("edit", solution, "--generator", "demo", "--direction", direction, "--out", tmp_path) == 2
    assert "another generator" in one_line(capsys.readouterr().err)
    (tmp_path / "cut.safetensors").write_bytes(solution.read_bytes()[:-50])
    for name, what in (("cut.safetensors", "truncated"), ("gone.safetensors", "does not exist")):
        assert run("edit", tmp_path / name, *words, direction) == 2
        assert what in one_line(capsys.readouterr().err)
    assert run("edit", generator, *words, direction) == 2
    assert "no solution" in one_line(capsys.readouterr().err)


def test_info_of_a_generator(generator, capsys) -> None:
    assert run("info", "--generator", generator, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    opened = saminv.load_generator(generator)
    assert found["fingerprint"] == opened.fingerprint and found["torch"] == torch.__version__
    assert {"W+", "F4", "F6"} <= set(found["spaces"]) and "F8" not in found["spaces"]
    assert len(found["sites"]) == len(opened.sites) and found["directions"] == ["none"]
    assert run("info", "--generator", generator) == 0
    told = capsys.readouterr().out
    assert opened.fingerprint in told and max(map(len, told.splitlines())) <= 100


def test_info_of_a_solution_needs_no_generator(inverted, tmp_path, capsys) -> None:
    assert run("info", inverted / "photo.safetensors") == 0
    told = capsys.readouterr().out
    assert "W+, F4" in told and "photo" in told and SENTENCE in told and "not a bundled one" in told
    assert run("info", tmp_path / "gone.safetensors") == 2
    assert "does not exist" in one_line(capsys.readouterr().err)


def test_demo(tmp_path, capsys, monkeypatch) -> None:
    solve, encoders = cli.demo.invert, []

    def quick_start(*positional, **named):
        encoders.append("mean")
        return solve(*positional, **named, encoder="mean")

    monkeypatch.setattr(cli.demo, "invert", quick_start)
    assert run("demo", "--out", tmp_path, "--steps", 1, "--device", "cpu") == 0
    told = capsys.readouterr()
    assert told.err == "" and all(name in told.out for name in ("SAM", "W+", "F10", "sheet.png"))
    assert {path.name for path in tmp_path.iterdir()} == {
        "scene.png",
        "sheet.png",
        "solution.safetensors",
        "report.json",
    }
    found = json.loads((tmp_path / "report.json").read_text())
    assert list(found["methods"]) == list(report.METHODS) and found["settings"]["spaces"] == ["W+", "F4", "F6", "F8"]
    for method in found["methods"].values():
        assert method["psnr"] > 0 and method["seconds"] > 0 and sum(method["car"].values()) == pytest.approx(1)
        assert set(method["effects"]) == {edit["direction"] for edit in found["edits"]}
    solution = saminv.Solution.load(tmp_path / "solution.safetensors")
    assert solution.spaces == ("W+", "F4", "F6", "F8")
    assert len(encoders) == 3


def test_demo_interrupted(tmp_path, capsys, monkeypatch) -> None:
    interrupt_at(0, monkeypatch)
    assert run("demo", "--out", tmp_path, "--steps", 5, "--device", "cpu") == 130
    assert list(json.loads((tmp_path / "report.json").read_text())["methods"]) == ["SAM"]
    assert saminv.Solution.load(tmp_path / "solution.safetensors").statuses == [saminv.Status.INTERRUPTED]

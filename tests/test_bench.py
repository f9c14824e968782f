"""The benchmarks of ``saminv bench``: contenders are the same function, clocks, and what the reports say."""

from __future__ import annotations

import functools
import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from helpers import assert_close

from saminv import InputError, cli
from saminv._errors import BenchError
from saminv._types import flatten, map_latents
from saminv.bench import Workload, measure_ceilings, measure_target
from saminv.bench.ceilings import peak_memory
from saminv.bench.compiled import CompiledProblem
from saminv.bench.descent import Recorder, Track, descend, evaluate, reached
from saminv.bench.kernels import KERNELS, Case, KernelReport, KernelTime, _measure, _passes, _times
from saminv.bench.plain import PlainLayer
from saminv.bench.processes import Processes, in_own_process, in_turns
from saminv.bench.report import describe_kernels, describe_speed, plot_speed
from saminv.bench.speed import COMPILED_PART, PARTS, PLAIN_PART, SpeedReport, gradient_difference, time_steps
from saminv.bench.target import SOLVERS
from saminv.bench.workload import Steps, build_problem, descent_problem
from saminv.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from saminv.optim import Objective, Problem, solve
from saminv.regions import Regions
from saminv.spaces import resolve_spaces

SMALL = Workload(resolution=32, channel_base=512, channel_max=16, net="squeeze")


@pytest.fixture(scope="module")
def timed():
    return [time_steps(SMALL.with_formulation(name), 2) for name in ("lean", "plain")]


@pytest.mark.parametrize("spaces", [("W+",), ("W+", "F2", "F3")])
def test_both_formulations_are_the_same_function(spaces):
    workload = replace(SMALL, batch=2, spaces=spaces)
    lean, plain = (build_problem(workload.with_formulation(name)) for name in ("lean", "plain"))
    assert all(isinstance(layer, PlainLayer) for layer in plain.generator.layers)
    assert not any(isinstance(layer, PlainLayer) for layer in lean.generator.layers)
    with torch.no_grad():
        images = [problem.render(problem.start()) for problem in (lean, plain)]
    assert float((images[0] - images[1]).abs().max() / images[1].abs().max()) < 1e-5
    found = gradient_difference(workload)
    assert len(found) == len(spaces) and 0 < max(found.values()) < 1e-5


def test_contenders_take_turns():
    assert in_turns(["lean"]) == ["lean"]
    assert in_turns(["lean", "plain"]) == ["lean", "plain", "plain", "lean"]
    assert in_turns(["lean", "compiled", "plain"]) == ["lean", "compiled", "plain", "plain", "compiled", "lean"]
    threads = torch.get_num_threads() + 1
    with Processes(threads, 1) as run:
        assert run(torch.get_num_threads) == threads


def test_a_process_that_is_ended_from_outside():
    with pytest.raises(BenchError, match="process of abort was ended from outside"):
        in_own_process(os.abort, 1)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_steps_of_the_compiled_formulation(timed):
    found = time_steps(SMALL.with_formulation("compiled"), 2)
    assert list(found.parts) == [COMPILED_PART, PARTS[-1]] and found.gflop == timed[0].gflop
    assert 0 < found.median and max(gradient_difference(SMALL, "compiled").values()) < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_the_compiled_formulation_is_the_same_function():
    generator = StyleGAN2(StyleGAN2Config(8, 8, 8, channel_max=4, mapping_layers=1)).requires_grad_(False)
    spaces = resolve_spaces(["W+", "F2"], generator)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]).expand(2, 8, 8).clone()
    parts = {
        "generator": generator,
        "target": torch.rand(2, 3, 8, 8),
        "styles": generator.mapping(generator.sample_z(2, seed=1)),
        "spaces": spaces,
        "regions": Regions(labels, tuple(space.name for space in spaces)),
        "objective": Objective(None),
    }
    eager, compiled = Problem(**parts), CompiledProblem(**parts)
    for seed in range(2):
        torch.manual_seed(seed)
        y = map_latents(lambda tensor: tensor + 0.1 * torch.randn_like(tensor), eager.start())
        found, expected = compiled.evaluate(y), eager.evaluate(y)
        assert_close(found.loss, expected.loss, 1e-5)
        assert_close(found.image, expected.image, 1e-5)
        assert list(found.parts) == list(expected.parts)
        for name, gradient in flatten(expected.gradients).items():
            assert_close(flatten(found.gradients)[name], gradient, 1e-5, name)


def test_the_usual_formulation_looks_at_the_target_at_every_step(monkeypatch):
    looks = []
    prepare = Objective.prepare
    monkeypatch.setattr(Objective, "prepare", lambda *arguments: looks.append(1) or prepare(*arguments))
    for name, more in (("lean", 0), ("plain", 3)):
        steps = Steps(SMALL.with_formulation(name))
        looks.clear()
        for _ in range(3):
            steps.take()
        assert len(looks) == more


def test_times_of_a_step(timed):
    lean, plain = timed
    assert len(lean.milliseconds) == 2 and min(lean.milliseconds) > 0 and lean.median <= max(lean.milliseconds)
    assert list(lean.parts) == list(PARTS) and list(plain.parts) == [PLAIN_PART, *PARTS]
    # Style gradients through weights, and the target once more.
    assert plain.gflop > 1.2 * lean.gflop > 0
    assert lean.gflops == pytest.approx(lean.gflop / lean.median * 1000)
    # The kernel counts resident pages in lumps.
    assert 0.1 < lean.peak_gib < 1.1 * peak_memory()


@pytest.mark.parametrize("settings", [{"precision": "bf16"}, {"graph": "on"}])
def test_steps_as_they_are_taken_on_a_gpu(settings):
    found = time_steps(replace(SMALL, **settings), 4)
    assert min(found.milliseconds) > 0 and list(found.parts) == list(PARTS)
    assert ("bf16" in found.workload.words) == ("precision" in settings)


def test_steps_of_a_generator_by_name():
    workload = Workload(generator="demo", formulation="plain", net="squeeze")
    assert workload.words == "plain, demo, batch 1, W+"
    problem = build_problem(workload)
    assert problem.generator.image_size == (128, 128)
    assert all(isinstance(layer, PlainLayer) for layer in problem.generator.layers)


def test_half_precision_shows_in_the_gradients():
    [error] = gradient_difference(replace(SMALL, precision="bf16")).values()
    assert 1e-4 < error < 0.1


def test_ceilings():
    found = measure_ceilings(size=64, repeats=1)
    assert found.dtype == "float32" and "CPU" in found.device
    assert min(found.matmul, found.copy, *found.convolution.values()) > 0


def test_a_report_in_words_and_as_a_picture(timed, tmp_path):
    pytest.importorskip("matplotlib", reason="the picture needs the extra plot")
    report = SpeedReport(measure_ceilings(size=64, repeats=1), 1, timed, [timed[0]], {"plain": {"W+/w": 1e-6}})
    text = describe_speed(report)
    assert f"{report.speedup['plain']:.2f} times as fast as the plain formulation; gradients differ by 1.0e-06." in text
    assert text.count("lean, 32 x 32, batch 1, W+") == 2
    assert plot_speed(report, tmp_path / "speed.png").read_bytes()[:4] == b"\x89PNG"
    assert report.to_dict()["steps"][1]["workload"]["formulation"] == "plain"


def test_a_target_that_can_be_reached():
    workload = replace(SMALL, batch=2)
    problem = descent_problem(workload)
    w = problem.generator.mapping(problem.generator.sample_z(2, seed=2))
    there = {"W+": {"w": w}}
    worse = {"W+": {"w": torch.cat([w[:1], problem.styles[1:]])}}
    psnr, loss = evaluate(problem, [problem.start(), there, worse])
    assert psnr[1] > 100 and loss[1] < 1e-8
    # The image of the batch that is worst counts.
    assert psnr[2] < 40 and loss[2] > 100 * loss[1] and psnr[0] <= psnr[2]


@pytest.mark.parametrize("name", SOLVERS)
def test_a_descent_is_seen_by_the_evaluator(name):
    track = descend(SMALL, SOLVERS[name], steps=25, every=8)
    assert track.steps == [0, 8, 16, 24, 25] and track.seconds[0] == 0
    assert track.seconds == sorted(track.seconds) and track.peak_gib > 0.1
    found = solve(descent_problem(SMALL), SOLVERS[name], max_steps=25)
    assert track.psnr[-1] == pytest.approx(float(found.stats["psnr"]), abs=1e-3)
    assert track.loss[-1] == pytest.approx(float(found.stats["loss"]), rel=1e-4) and track.loss[-1] < track.loss[0]


def test_the_clock_stands_while_a_descent_is_looked_at(monkeypatch):
    now = iter([0.0, 10.0, 13.0, 50.0, 55.0, 90.0])
    monkeypatch.setattr("saminv.bench.descent.time.perf_counter", lambda: next(now))
    recorder = Recorder(torch.device("cpu"), every=2, last=3)
    latents = {"W": {"w": torch.zeros(1)}}
    recorder.start(latents)
    for step in (1, 2, 3):
        latents["W"]["w"] += 1
        recorder.see(step, lambda: latents)
    assert recorder.steps == [0, 2, 3] and recorder.seconds == [0, 3, 8]
    assert [float(point["W"]["w"]) for point in recorder.points] == [0, 2, 3]


def test_levels_that_were_reached():
    runs = [Track([0, 5, 10], [0, 1.0, 2.0], [5, 20, 19], [3, 2, 1], 1), Track([0, 5], [0, 3.0], [5, 21], [3, 2], 1)]
    assert reached({"a": runs}, [20, 20.5]) == {
        "a": {"20": {"steps": 5, "seconds": 2.0, "runs": [1.0, 3.0]}, "20.5": None}
    }


def test_the_command_target(tmp_path, capsys):
    words = "--generator random --resolution 32 --channels 8 --net squeeze --steps 2 --every 2 --threads 1 --psnr 0 99"
    more = ["--solvers", "lbfgs", "--out", str(tmp_path)]
    assert cli.main(["bench", "target", *words.split(), *more]) == 0
    out = capsys.readouterr().out
    assert "generator random, batch 1, W+" in out and "99 dB" in out and "never" in out
    found = json.loads((tmp_path / "target.json").read_text())
    [track] = found["tracks"]["lbfgs"]
    assert track["steps"] == [0, 2] and found["reached"]["lbfgs"]["99"] is None
    assert (tmp_path / "target.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled here, not interpreted")
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_called_as_they_are_used(name):
    pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed here")
    rows = _measure(name, ("float32", "float16"), "cpu")
    directions = ["forward"] if name == "adam_step" else ["forward", "backward"]
    assert [(row.dtype, row.direction) for row in rows] == [(d, p) for d in ("float32", "float16") for p in directions]
    assert all(row.agrees and not row.milliseconds for row in rows)
    wide, narrow = rows[: len(directions)], rows[len(directions) :]
    # LPIPS and the penalty give float32 from half precision.
    assert all(one.moved <= 2 * other.moved for one, other in zip(wide, narrow))


def test_bytes_of_a_kernel():
    draw = functools.partial(torch.zeros, dtype=torch.float32)
    change, square, adam = (
        KERNELS[n][0](draw, (2, 3, 5)) for n in ("layer_epilogue, change", "scaled_square", "adam_step")
    )
    feature, noise = 4 * 2 * 3 * 5, 4 * 3 * 5
    result = change.call("reference")
    # Read x, demodulation, bias, noise, change and mask, write the feature.
    assert change.forward_bytes(result) == 3 * feature + 4 * (2 + 2) + 2 * noise
    # Read what arrives, x, demodulation, bias, noise and mask; write gradients of x, demodulation and change.
    assert change.backward_bytes(result) == 4 * feature + 4 * (2 + 2 + 2) + 2 * noise
    result = square.call("reference")
    assert square.forward_bytes(result) == feature + 4 * 2 + 4 and square.backward_bytes(result) == 4 + 2 * feature + 8
    # Read the variables, the gradient, both moments and two numbers; write all but the gradient.
    assert adam.forward_bytes(adam.call("reference")) == 7 * feature + 8


def test_a_kernel_that_does_not_agree_is_not_timed(monkeypatch):
    monkeypatch.setattr("saminv.bench.kernels._milliseconds", lambda call: pytest.fail("it was timed"))

    def wrong(x, impl):
        return 2 * x if impl == "reference" else 2.001 * x

    case = Case(wrong, {"x": torch.ones(1, 2, 3, 3)}, moving=("x",))
    rows = list(_passes("wrong", case, (2, 3, 3), "float32", timed=True))
    assert [row.agrees for row in rows] == [False, False] and rows[0].difference == pytest.approx(5e-4, rel=0.01)
    report = KernelReport("GPU", False, 1000.0, rows)
    assert "5e-04 (too much)" in describe_kernels(report) and report.to_dict()["rows"][0]["agrees"] is False


def test_shares_of_the_bandwidth():
    row = KernelTime("blur", (2, 3, 3), "float32", "forward", 2 * 10**6, 0.0, {"triton": 0.004, "reference": 0.01})
    report = KernelReport("GPU", False, 1000.0, [row])
    assert report.share(row, "triton") == pytest.approx(0.5) and report.share(row, "compiled") is None
    assert "copies 1000 GB/s" in describe_kernels(report) and "0.0040  50%" in describe_kernels(report)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled here, not interpreted")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_kernels_take_turns_with_what_the_compiler_makes(monkeypatch, direction):
    pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed here")
    calls = []
    monkeypatch.setattr("saminv.bench.kernels._milliseconds", lambda call: calls.append(call()) or 1.0 * len(calls))
    case = KERNELS["layer_epilogue"][0](torch.ones, (2, 3, 5))
    assert _times(case, direction) == {"triton": 3.5, "reference": 3.5, "compiled": 3.5}
    for found in calls[1:]:
        torch.testing.assert_close(found, calls[0])


def test_the_command_kernels(tmp_path, capsys):
    pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed here")
    words = ["bench", "kernels", "--interpret", "--threads", "1", "--kernels", "blur", "--dtypes", "float32"]
    assert cli.main([*words, "--out", str(tmp_path)]) == 0
    assert "not timed" in capsys.readouterr().out
    found = json.loads((tmp_path / "kernels.json").read_text())
    assert found["interpreted"] and found["copy"] is None
    assert [row["milliseconds"] for row in found["rows"]] == [{}, {}] and all(row["agrees"] for row in found["rows"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--kernels", "sort", "--interpret"], "no kernel sort; there are: layer_epilogue;"),
        pytest.param(
            [],
            "torch sees none here; --interpret",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here"),
        ),
    ],
)
def test_kernels_that_cannot_be_measured(tmp_path, capsys, words, said):
    pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed here")
    assert cli.main(["bench", "kernels", *words, "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_solvers_that_are_not_there():
    with pytest.raises(InputError, match="among adam, lbfgs, relay; got newton"):
        measure_target(SMALL, solvers=["adam", "newton"])


def test_the_command_speed(tmp_path, capsys):
    words = "--resolution 32 --channels 8 --net squeeze --steps 1 --threads 1 --compare none --json"
    assert cli.main(["bench", "speed", *words.split(), "--out", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "speed.json").read_text())
    assert found["threads"] == 1 and found["speedup"] == {} and len(found["steps"]) == 1


@pytest.mark.parametrize("settings", [{"formulation": "fat"}, {"batch": 0}])
def test_workloads_that_are_none(settings):
    with pytest.raises(InputError, match="must be"):
        replace(SMALL, **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there(tmp_path, capsys):
    assert cli.main(["bench", "speed", "--device", "cuda", "--out", str(tmp_path)]) == 2
    assert "no CUDA device" in capsys.readouterr().err

"""The benchmarks of ``saminv bench``: contenders are the same function, clocks, and what the reports say."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from helpers import assert_close

from saminv import InputError, cli
from saminv._types import flatten, map_latents
from saminv.bench import Workload, measure_ceilings, measure_target
from saminv.bench.ceilings import peak_memory
from saminv.bench.compiled import CompiledProblem
from saminv.bench.descent import Recorder, Track, descend, evaluate, reached
from saminv.bench.plain import PlainLayer
from saminv.bench.processes import Processes, in_turns
from saminv.bench.report import describe_speed, plot_speed
from saminv.bench.speed import PARTS, PLAIN_PART, SpeedReport, gradient_difference, time_steps
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
    track = descend(SMALL, SOLVERS[name], steps=7, every=3)
    assert track.steps == [0, 3, 6, 7] and track.seconds[0] == 0
    assert track.seconds == sorted(track.seconds) and track.peak_gib > 0.1
    found = solve(descent_problem(SMALL), SOLVERS[name], max_steps=7)
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

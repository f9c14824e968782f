"""The speed benchmark: the usual formulation is the same function, and what the report says."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from saminv import InputError, cli
from saminv.bench import Workload, measure_ceilings
from saminv.bench.plain import PlainLayer
from saminv.bench.report import describe_speed, plot_speed
from saminv.bench.speed import PARTS, PLAIN_PART, SpeedReport, gradient_difference, peak_memory, time_steps
from saminv.bench.workload import Steps, build_problem
from saminv.optim import Objective

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
    report = SpeedReport(measure_ceilings(size=64, repeats=1), 1, timed, [timed[0]], {"W+/w": 1e-6})
    text = describe_speed(report)
    assert f"{report.speedup:.2f} times as fast as the plain formulation; gradients differ by 1.0e-06." in text
    assert text.count("lean, 32 x 32, batch 1, W+") == 2
    assert plot_speed(report, tmp_path / "speed.png").read_bytes()[:4] == b"\x89PNG"
    assert report.to_dict()["steps"][1]["workload"]["formulation"] == "plain"


def test_the_command(tmp_path, capsys):
    words = "--resolution 32 --channels 8 --net squeeze --steps 1 --threads 1 --no-compare --json"
    assert cli.main(["bench", "speed", *words.split(), "--out", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "speed.json").read_text())
    assert found["threads"] == 1 and found["speedup"] is None and len(found["steps"]) == 1


@pytest.mark.parametrize("settings", [{"formulation": "fat"}, {"batch": 0}])
def test_workloads_that_are_none(settings):
    with pytest.raises(InputError, match="must be"):
        replace(SMALL, **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there(tmp_path, capsys):
    assert cli.main(["bench", "speed", "--device", "cuda", "--out", str(tmp_path)]) == 2
    assert "no CUDA device" in capsys.readouterr().err

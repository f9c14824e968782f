"""Published code beside ours: gates, failures of all kinds, and what is told."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from published import write_published

from saminv import InputError, cli
from saminv._errors import BenchError
from saminv.bench import Workload, measure_against
from saminv.bench.families import FAMILIES, NVLabs, find_family
from saminv.bench.guest import Guest

SMALL = Workload(resolution=32, channel_base=512, channel_max=8, net="squeeze")
WORDS = ["--resolution", "32", "--channels", "8", "--net", "squeeze", "--threads", "1", "--count", "1"]
WORDS += ["--steps", "2", "--every", "1", "--psnr", "0", "99"]
RENDER = "return self.inner.synthesis(ws, noise=noise_mode)"


def guest(folder: Path, place: Path, timeout: float = 120) -> Guest:
    place.mkdir()
    return Guest(folder, find_family(folder), SMALL, place, threads=1, timeout=timeout)


@pytest.mark.slow
def test_the_same_function_is_timed(tmp_path, capsys):
    folder = write_published(tmp_path / "code")
    assert cli.main(["bench", "against", str(folder), *WORDS, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "hello" not in out and out.count("agrees: ") == 2
    assert "not the same loss" in out and "under a common loss" in out
    found = json.loads((tmp_path / "out" / "against.json").read_text())
    assert found["passed"] and found["family"] == "nvlabs"
    assert 0 <= found["gates"][0]["difference"] < 1e-6
    # Forth and back: two processes each.
    assert {name: len(cost["milliseconds"]) for name, cost in found["costs"].items()} == {"saminv": 2, "nvlabs": 2}
    assert {name: len(runs) for name, runs in found["tracks"].items()} == {"saminv, adam": 2, "nvlabs": 2}
    starts = {runs[0]["psnr"][0] for runs in found["tracks"].values()}
    ends = {runs[0]["psnr"][-1] for runs in found["tracks"].values()}
    assert len(starts) == 1 and len(ends) == 2
    assert all(run["steps"] == [0, 1, 2] for runs in found["tracks"].values() for run in runs)
    assert (tmp_path / "out" / "against.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("edit", "failed"),
    [
        ((RENDER, RENDER + " * 1.001"), [True, True]),
        # Right pixels, wrong gradients: one style is taken for a constant.
        pytest.param(
            (RENDER, "return self.inner.synthesis(torch.cat([ws[:, :1].detach(), ws[:, 1:]], 1))"),
            [False, True],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_another_function_is_not_timed(tmp_path, capsys, edit, failed):
    folder = write_published(tmp_path / "code", edit)
    assert cli.main(["bench", "against", str(folder), *WORDS, "--out", str(tmp_path / "out")]) == 1
    out = capsys.readouterr().out
    assert "DIFFERS" in out and "no speed is told" in out and "ms" not in out
    found = json.loads((tmp_path / "out" / "against.json").read_text())
    assert [not gate["passed"] for gate in found["gates"]] == failed
    assert not found["passed"] and not found["costs"] and not found["tracks"]
    worst = max(gate["difference"] for gate in found["gates"])
    assert f"{worst:.1e}" in out


def test_code_that_raises(tmp_path, capsys):
    folder = write_published(tmp_path / "code", ("super().__init__()", 'raise RuntimeError("out of cheese")'))
    assert cli.main(["bench", "against", str(folder), *WORDS, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "failed at 'export' (exit code 1): RuntimeError: out of cheese" in error
    assert not (tmp_path / "out" / "against.json").exists()


def test_code_that_hangs(tmp_path):
    beat = tmp_path / "beat"
    # It also starts a process, which must not outlive it.
    program = f"import time\nwhile True: open({str(beat)!r}, 'w').close(); time.sleep(0.1)"
    hang = f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {program!r}])\ntime.sleep(600)\n"
    folder = write_published(tmp_path / "code", ('print("hello', hang + 'print("hello'))
    begin = time.perf_counter()
    with pytest.raises(BenchError, match="longer than 25 s at 'export'; see --timeout"):
        guest(folder, tmp_path / "place", timeout=25).ask("export")
    assert time.perf_counter() - begin < 60
    last = beat.stat().st_mtime_ns
    time.sleep(1)
    assert beat.stat().st_mtime_ns == last


def test_code_with_other_arrays(tmp_path):
    folder = write_published(tmp_path / "code", ('"synthesis.b4.const"', '"synthesis.b4.constant"'))
    with pytest.raises(BenchError, match="other arrays than the family 'nvlabs'"):
        measure_against(folder, SMALL, threads=1)


def test_nothing_of_the_folder_is_imported_here(tmp_path):
    folder = write_published(tmp_path / "code")
    path = list(sys.path)
    asked = guest(folder, tmp_path / "place")
    assert asked.ask("export") == {}
    assert "training" not in sys.modules and sys.path == path
    assert (tmp_path / "place" / "weights.safetensors").is_file()
    assert "hello" in (tmp_path / "place" / "output.txt").read_text()


def test_folders_that_are_none(tmp_path, capsys):
    with pytest.raises(InputError, match="is no folder"):
        find_family(tmp_path / "nowhere")
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "networks.py").write_text("def Generator(): pass\n")
    assert cli.main(["bench", "against", str(tmp_path), *WORDS, "--out", str(tmp_path / "out")]) == 2
    assert "nvlabs: class Generator in training/networks.py or" in capsys.readouterr().err


def test_both_layouts_are_recognised(tmp_path):
    for name in ("networks", "networks_stylegan2"):
        folder = tmp_path / name
        (folder / "training").mkdir(parents=True)
        (folder / "training" / f"{name}.py").write_text("import os\n\nclass Generator(torch.nn.Module):\n    pass\n")
        assert find_family(folder).name == find_family(folder, "nvlabs").name == "nvlabs"
    with pytest.raises(InputError, match="Known: nvlabs"):
        find_family(tmp_path, "stylegan9")
    assert list(FAMILIES) == ["nvlabs"]


def test_the_published_schedule():
    rates = [NVLabs().rate(step, 1000) for step in range(1000)]
    assert rates[0] == 0 and rates[25] == pytest.approx(0.05) and max(rates) == rates[50] == rates[750] == 0.1
    assert rates[875] == pytest.approx(0.05) and rates[999] < 1e-4


def test_the_help_says_that_code_is_run(capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", "against", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "RUNS THE CODE IN THIS FOLDER" in text and "only code that you trust" in text

"""Every example runs as a user would run it, in a process of its own, and leaves what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from saminv import images

FOLDER = Path(__file__).resolve().parent.parent / "examples"
RUNS = {
    "01_invert_a_scene.py": ([], ["scene.png", "reconstruction.png", "sheet.png", "scene.safetensors"]),
    "02_edit.py": ([], ["edit-own.png"]),
    "03_spaces_and_tau.py": (["--taus", "0.3", "--single", "W+"], ["tau.csv", "tau.png"]),
    "04_your_own_picture.py": ([], ["wide.png", "wide-inverted.png", "wide-sheet.png"]),
    "05_your_own_solver_or_space.py": ([], []),
    "06_sweep_and_target.py": (["--taus", "0.2", "1"], ["curve.json", "curve.png", "target-sheet.png"]),
    "07_folder_of_pictures.py": (["--count", "2"], ["run/manifest.jsonl", "run/gallery.html"]),
    "08_blend_and_pair_edit.py": ([], ["blend-sheet.png", "pair-sheet.png"]),
}


def run(name: str, *arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, str(FOLDER / name), "--steps", "2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run_and_listed() -> None:
    scripts = {path.name for path in FOLDER.glob("*.py")}
    assert scripts == set(RUNS)
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\d\d_\w+\.py)`", table)) == scripts


@pytest.mark.parametrize("name", RUNS)
def test_examples_are_short_and_use_public_names_only(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert len(text.splitlines()) < 80
    imported = re.findall(r"^(?:from|import) (saminv\S*)(?: import (.*))?$", text, flags=re.MULTILINE)
    assert imported
    assert not [words for words in imported if re.search(r"(^|[ .])_", " ".join(words))]
    assert not re.search(r"\._[a-z]", text)


@pytest.mark.parametrize("name", RUNS)
def test_examples_run(name: str, tmp_path: Path) -> None:
    arguments, files = RUNS[name]
    told = run(name, *arguments, *(["--out", str(tmp_path)] if files else []))
    assert told.strip()
    for file in files:
        assert (tmp_path / file).stat().st_size > 0
        if file.endswith(".png"):
            assert images.load(tmp_path / file).tensor.std() > 0.05

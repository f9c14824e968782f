"""`saminv blend` and `saminv pair-edit`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import toy_stylegan2

from saminv import Solution, cli, images
from saminv.generators import save_generator


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that make an inversion take no time."""
    path = save_generator(toy_stylegan2(), tmp_path_factory.mktemp("generator") / "toy.safetensors")
    words = "--metric mse --encoder mean --device cpu --steps 3"
    return ["--generator", str(path), *words.split()]


def paint(path: Path, seed: int, mark: bool = False, side: int = 32) -> Path:
    pixels = np.kron(np.random.default_rng(seed).integers(0, 256, (4, 4, 3)), np.ones((side // 4, side // 4, 1)))
    if mark:
        pixels[:8, :8] = 255 - pixels[:8, :8]
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


@pytest.fixture()
def call(quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> int:
        return cli.main([str(word) for word in words] + quick)

    return run


@pytest.mark.filterwarnings("ignore:.*far from what the generator makes")
def test_blend_writes_its_pictures(call, tmp_path, capsys) -> None:
    a, b = paint(tmp_path / "a.png", 0), paint(tmp_path / "b.png", 1)
    assert call("blend", a, b) == 0
    files = [Path(line) for line in capsys.readouterr().out.split()]
    assert files == [Path("saminv-blend/blend.png"), Path("saminv-blend/blend-sheet.png")]
    assert images.load(files[0]).size == (32, 32)


@pytest.mark.filterwarnings("ignore:.*far from what the generator makes")
def test_solutions_are_blended_without_an_inversion(call, quick, tmp_path, monkeypatch) -> None:
    a, b = paint(tmp_path / "a.png", 0), paint(tmp_path / "b.png", 1)
    assert call("invert", a, b, "--spaces", "W+", "FS", "--out", "done") == 0
    monkeypatch.setattr("saminv.cli.mix.invert", None)
    assert call("blend", "done/a.safetensors", "done/b.safetensors", "--out", "mixed") == 0
    assert images.load("mixed/blend.png").size == (32, 32)
    assert "FS" in Solution.load("done/a.safetensors", generator=quick[1]).latents


@pytest.mark.filterwarnings("ignore:.*far from what the generator makes")
def test_a_pair_edits_others(call, tmp_path, capsys) -> None:
    before, after = paint(tmp_path / "before.png", 0), paint(tmp_path / "after.png", 0, mark=True)
    other = paint(tmp_path / "other.png", 2)
    assert call("pair-edit", before, after, other, "--space", "P", "--strength", "0.5") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("W+ ") and said[0].endswith("-> P")
    assert said[1:] == ["saminv-pair-edit/other-edited.png", "saminv-pair-edit/pair-sheet.png"]
    assert images.load(said[1]).size == (32, 32)


@pytest.mark.filterwarnings("ignore:.*far from what the generator makes")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("blend", "a.png", "a.png", "--spaces", "W+"), "blending needs padding or a feature code"),
        (("blend", "a.png", "b.png", "--spaces", "P", "P5"), "both set the site 'P5'"),
        (("blend", "a.png", "missing.png"), "missing.png"),
        (("pair-edit", "a.png", "a.png", "b.png"), "the same, or nearly so"),
        (("pair-edit", "a.png", "large.png", "b.png"), "need one size"),
        (("pair-edit", "a.png", "b.png", "b.png", "--space", "F4"), "F4 cannot be moved"),
    ],
)
def test_what_cannot_be_combined(words, said, call, tmp_path, capsys) -> None:
    for seed, name in enumerate("ab"):
        paint(tmp_path / f"{name}.png", seed)
    paint(tmp_path / "large.png", 0, side=64)
    assert call(*words) == 2
    assert said in capsys.readouterr().err

"""The built wheel carries its weights with their cards, and they load from it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from saminv.weights import cards, load_bundled

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel's content, built from a copy so that the checkout stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if tracked.returncode:
        pytest.skip("this is no git checkout, so what belongs into the wheel is not known")
    for name in tracked.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    built = subprocess.run([*command, str(folder / "source")], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "content")
    return folder / "content"


def test_every_bundled_weight_has_a_card_and_loads_from_the_wheel(unpacked):
    weights = unpacked / "saminv" / "weights"
    files = {path.stem for path in weights.glob("*.safetensors")}
    assert files == set(cards(weights)) == set(cards())
    assert {"demo-generator", "demo-vision"} <= files
    for name in files:
        arrays, _ = load_bundled(name, weights)
        assert arrays and all(bool(array.isfinite().all()) for array in arrays.values())


def test_cards_state_licence_data_and_training():
    for card in cards().values():
        assert card.licence == "MIT" and card.data and card.trained_by.startswith("python -m saminv.")


def test_bundled_weights_are_as_small_as_promised():
    weights = ROOT / "saminv" / "weights"
    assert (weights / "demo-generator.safetensors").stat().st_size <= 8_000_000
    assert (weights / "demo-vision.safetensors").stat().st_size <= 3_000_000
    for encoder in weights.glob("demo-encoder-*.safetensors"):
        assert encoder.stat().st_size <= 4_000_000


def test_the_package_has_everything_it_needs_to_run(unpacked):
    for name in ("saminv/py.typed", "saminv/cli/__init__.py", "saminv/weights/cards.toml"):
        assert (unpacked / name).is_file(), name
    (entry,) = unpacked.glob("saminv-*.dist-info/entry_points.txt")
    assert "saminv = saminv.cli:main" in entry.read_text()

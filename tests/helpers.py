"""What several tests share: golden arrays and comparison by the largest relative difference."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
GOLDEN_DIRS = (HERE / "golden", HERE.parent.parent / "shared" / "golden")
PHOTOS = HERE.parent.parent / "shared" / "photos"


class Golden:
    """One golden file: arrays by key as torch tensors, and its configuration."""

    def __init__(self, path: Path) -> None:
        self._arrays = np.load(path, allow_pickle=False)
        self.meta: dict[str, Any] = json.loads(str(self._arrays["meta_json"])) if "meta_json" in self._arrays else {}

    def keys(self) -> list[str]:
        return list(self._arrays.keys())

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.array(self._arrays[key]))

    def results(self) -> dict[str, Tensor]:
        """All arrays but the states of networks and their inputs."""
        return {k: self[k] for k in self.keys() if k != "meta_json" and not k.startswith(("state/", "in/"))}

    def under(self, prefix: str) -> dict[str, Tensor]:
        """All arrays whose key starts with ``prefix``, by the rest of the key."""
        return {k[len(prefix) :]: self[k] for k in self.keys() if k.startswith(prefix)}


def golden(name: str) -> Golden:
    """Load ``<name>.npz`` from tests/golden or ../shared/golden; skip the test where neither has it."""
    for folder in GOLDEN_DIRS:
        path = folder / f"{name}.npz"
        if path.is_file():
            return Golden(path)
    pytest.skip(f"golden data {name}.npz is neither in tests/golden nor in ../shared/golden")


def relative_difference(got: Tensor, expected: Tensor) -> float:
    """max|a - b| / max|b|."""
    assert got.shape == expected.shape, f"shape {tuple(got.shape)} against {tuple(expected.shape)}"
    scale = expected.double().abs().max().clamp_min(1e-30)
    return float((got.double() - expected.double()).abs().max() / scale)


def assert_close(got: Tensor, expected: Tensor, tolerance: float, what: str = "") -> None:
    """Assert that the relative difference is at most ``tolerance``."""
    difference = relative_difference(got.detach(), expected)
    assert difference <= tolerance, f"{what}: relative difference {difference:.2e} > {tolerance:.0e}"


def assert_all_close(name: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float) -> None:
    """Assert it of all arrays of a golden file by their keys, none left out, and print the worst of them."""
    assert set(found) == set(expected)
    differences = {key: relative_difference(found[key].detach(), expected[key]) for key in expected}
    worst = max(differences, key=differences.__getitem__)
    print(
        f"\n{name}: {len(found)} arrays, worst difference {differences[worst]:.1e} ({worst}), allowed {tolerance:.0e}"
    )
    assert differences[worst] <= tolerance, worst

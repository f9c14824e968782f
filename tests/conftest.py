"""Settings of all tests."""

from __future__ import annotations

import os
import secrets

import pytest
import torch

# Without a GPU, kernels are interpreted. Triton reads this when a kernel is defined, so it is said before any is.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def no_kept_directions(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directions that somebody has found on this machine are none of a test's business."""
    monkeypatch.setenv("SAMINV_DIRECTIONS", str(tmp_path_factory.getbasetemp() / "directions" / secrets.token_hex(4)))

"""Memory that is freed stays with the process."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

import saminv

FAULTS = """
import resource, sys, torch, saminv
torch.set_num_threads(1)
if "keep" in sys.argv:
    assert saminv.keep_memory()
x = torch.ones(1 << 24)
y = x * 2
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    del y
    y = x * 2
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*words: str) -> int:
    """Of four products of 64 MB."""
    done = subprocess.run([sys.executable, "-c", FAULTS, *words], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library of Linux is told")
def test_freed_memory_is_taken_again_without_page_faults():
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("this C library has no mallopt")
    assert page_faults("keep") < page_faults() / 10


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not saminv.keep_memory()

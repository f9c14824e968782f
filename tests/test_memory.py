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


def fresh(count):
    global y
    for _ in range(count):
        del y
        y = x * 2


fresh(4)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fresh(8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*words: str) -> int:
    """Of eight products of 64 MB, after four: where a freed block lies, the next does not always fit at once."""
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

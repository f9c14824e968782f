"""Damaged checkpoints of every form: a correct load or a CheckpointError, and nothing else."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from mutants import mutated, outcome, seeds, try_mutants

from saminv.checkpoints import read_checkpoint


def count_outcomes(count, seed, folder) -> Counter:
    counts = Counter(found for _, _, found in try_mutants(count, seed, folder))
    print(dict(counts))
    assert sum(counts.values()) == count
    assert set(counts) <= {"refused", "loaded as it was", "loaded with other values"}
    return counts


def test_mutants(tmp_path):
    counts = count_outcomes(500, 1, tmp_path)
    assert counts["refused"] > 100 and counts["loaded with other values"] > 5


@pytest.mark.slow
def test_many_mutants(tmp_path):
    counts = count_outcomes(10_000, 2, tmp_path)
    assert sum(counts.values()) == 10_000 and counts["refused"] > 2_000


def test_seeds_are_read_and_mutants_differ(tmp_path):
    source = random.Random(3)
    for name, content in seeds().items():
        path = tmp_path / "a"
        path.write_bytes(content)
        wanted = read_checkpoint(path)
        assert outcome(path, wanted) == "loaded as it was", name
        assert any(mutated(content, content, source) != content for _ in range(5))

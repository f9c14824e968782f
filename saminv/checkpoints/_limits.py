"""What a file may ask for. All of it is bounded, most of it by the size of the file."""

from __future__ import annotations

from .._errors import CheckpointError

MIB = 1 << 20
MAX_STEPS = 1_000_000
"""Instructions of all pickles of a file together; the largest published checkpoints have a tenth of it."""
MAX_DEPTH = 500
"""Containers that are open at once, and levels of a tree that is walked."""
MAX_STACK = 100_000
"""Values that wait on the stack of a pickle."""
MAX_NESTED = 3
"""Pickles inside of pickles."""
MAX_INTEGER = 64
"""Bytes of a whole number."""
MAX_LINE = 64 * MIB
"""Bytes of a text, and of a line where a pickle has lines."""
MAX_HEADER = 16 * MIB
"""Bytes of the header of an array or safetensors file."""
MAX_MEMBERS = 50_000
"""Members of an archive."""
SLACK = 64 * MIB
"""What a small file may ask for beyond its size."""


class Budget:
    """Counts what the reading of one file costs, and ends it when that is out of proportion.

    Attributes:
        size: Bytes of the file.
        steps: Instructions that are left.
        copies: Bytes that may still be made, by unpacking and by constructors.
        arrays: Bytes that arrays may still have, each counted as often as it is named.

    Raises:
        CheckpointError: From every method, when the budget is used up.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.steps = MAX_STEPS
        self.copies = size + SLACK
        self.arrays = 2 * size + SLACK

    def step(self, count: int = 1) -> None:
        """Count instructions, or elements that an instruction copies."""
        self.steps -= count
        if self.steps < 0:
            raise CheckpointError(f"it has more than {MAX_STEPS:,} instructions, which no checkpoint needs")

    def copy(self, count: int) -> None:
        """Count bytes that are made."""
        self.copies -= count
        if self.copies < 0:
            raise CheckpointError(f"it unpacks to far more than its {self.size:,} bytes")

    def array(self, count: int) -> None:
        """Count bytes of an array that is handed on."""
        self.arrays -= count
        if self.arrays < 0:
            raise CheckpointError(f"its arrays ask for far more than the {self.size:,} bytes of the file")

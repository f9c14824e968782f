"""Settings of all tests."""

from __future__ import annotations

import os

import torch

# Without a GPU, kernels are interpreted. Triton reads this when a kernel is defined, so it is said before any is.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

"""Choice between the implementations of an op."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from .._errors import InputError

IMPLS = ("auto", "reference", "triton")


def choose(
    op: str, impl: str, implementations: Mapping[str, Callable[..., Any]], *tensors: Tensor
) -> Callable[..., Any]:
    """Return the function that computes an op.

    Args:
        op: name of the op, for messages.
        impl: ``"auto"`` takes the Triton kernel where there is one and all tensors are on a CUDA device, and the
            reference otherwise; an explicit name works or raises.
        implementations: functions by name; ``"reference"`` is always among them.
        tensors: the tensors that the op will read.

    Raises:
        InputError: ``impl`` is not a known name, the op has no such kernel, or the kernel cannot read the tensors.
    """
    if impl not in IMPLS:
        raise InputError(f'impl={impl!r} is not an implementation of "{op}"; allowed are {", ".join(IMPLS)}.')
    on_cuda = all(tensor.is_cuda for tensor in tensors)
    if impl == "auto":
        impl = "triton" if "triton" in implementations and on_cuda else "reference"
    if impl not in implementations:
        raise InputError(f'The op "{op}" has no Triton kernel; use impl="auto" or impl="reference".')
    if impl == "triton" and not on_cuda:
        raise InputError(f'The Triton kernel of "{op}" needs CUDA tensors; use impl="auto" or impl="reference".')
    return implementations[impl]

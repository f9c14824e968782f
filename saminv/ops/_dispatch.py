"""Choice between the implementations of an op."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError

IMPLS = ("auto", "reference", "lean", "triton")
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


_preferred: ContextVar[str] = ContextVar("preferred", default="auto")


@contextmanager
def using(impl: str) -> Iterator[None]:
    """Let ``impl="auto"`` mean another implementation for a while, for instance to check one against the other.

    Args:
        impl: "reference", or "lean" or "triton" for every op that has one, or "auto".

    Raises:
        InputError: If there is no such implementation.
    """
    if impl not in IMPLS:
        raise InputError(f"impl={impl!r} is no implementation; allowed are {', '.join(IMPLS)}.")
    token = _preferred.set(impl)
    try:
        yield
    finally:
        _preferred.reset(token)


def choose(
    op: str, impl: str, implementations: Mapping[str, Callable[..., Any]], *tensors: Tensor
) -> Callable[..., Any]:
    """Return the function that computes an op.

    Args:
        op: name of the op, for messages.
        impl: ``"auto"`` takes the Triton kernel where there is one that can read the tensors, which are all on a CUDA
            device, and the lean form or the reference otherwise; an explicit name works or raises.
        implementations: functions by name; ``"reference"`` is always among them.
        tensors: the tensors that the op will read.

    Raises:
        InputError: ``impl`` is not a known name, the op has no such kernel, or the kernel cannot read the tensors.
    """
    if impl not in IMPLS:
        raise InputError(f'impl={impl!r} is not an implementation of "{op}"; allowed are {", ".join(IMPLS)}.')
    on_cuda = all(tensor.is_cuda for tensor in tensors)
    if impl == "auto":
        wanted = _preferred.get()
        device = on_cuda or (wanted == "triton" and interpreted())
        usable = "triton" in implementations and device and has_triton() and _readable(tensors)
        if usable and wanted in ("auto", "triton"):
            return implementations["triton"]
        return implementations["lean" if "lean" in implementations and wanted != "reference" else "reference"]
    if impl not in implementations:
        what = "Triton kernel" if impl == "triton" else "lean form"
        raise InputError(f'The op "{op}" has no {what} for these inputs; use impl="auto" or impl="reference".')
    if impl == "triton":
        _check_kernel(op, on_cuda, tensors)
    return implementations[impl]


def _check_kernel(op: str, on_cuda: bool, tensors: Sequence[Tensor]) -> None:
    if not has_triton():
        raise InputError(f'The Triton kernel of "{op}" needs the package triton, which is not installed.')
    if not on_cuda and not interpreted():
        raise InputError(f'The Triton kernel of "{op}" needs CUDA tensors; use impl="auto" or impl="reference".')
    if not _readable(tensors):
        kinds = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors}))
        raise InputError(f'The Triton kernel of "{op}" reads float32, float16 and bfloat16, not {kinds}.')


def _readable(tensors: Sequence[Tensor]) -> bool:
    return all(tensor.dtype in KERNEL_DTYPES for tensor in tensors)


@functools.cache
def has_triton() -> bool:
    """Whether the compiler of the kernels is installed."""
    return importlib.util.find_spec("triton") is not None


def interpreted() -> bool:
    """Whether kernels are interpreted, so that they run on the CPU: slowly, for tests."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")


def gradients_by(
    function: Callable[..., Tensor], inputs: Sequence[Tensor | None], needed: Sequence[bool], gradient: Tensor
) -> list[Tensor | None]:
    """Gradients of ``function(*inputs)`` that can be differentiated again; None where they are not needed.

    A kernel's backward calls it with the reference where gradients of gradients are asked for.
    """
    with torch.enable_grad():
        wanted = [tensor for tensor, need in zip(inputs, needed) if need and tensor is not None]
        found = iter(torch.autograd.grad(function(*inputs), wanted, gradient, create_graph=True, allow_unused=True))
    return [next(found) if need and tensor is not None else None for tensor, need in zip(inputs, needed)]

"""In which numbers a step is computed.

Latents, styles, regularisers and solvers are always in the type of the generator's weights, float32 as a rule. What is
big, the features of the generator and of the perceptual metric, may be in half precision, at half the memory and twice
the speed on a GPU. The last steps of a run are in float32 then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from .._errors import InputError
from ..generators._base import AbstractGenerator


@dataclass(frozen=True)
class Precision:
    """Types of the numbers of a step.

    Attributes:
        name: Such as "fp16".
        features: Type of features; None for that of the generator's weights.
        tf32: Let convolutions of float32 round their factors to 10 bits, where a GPU can.
        polish: Share of a run, at its end, whose steps have features of full precision.
    """

    name: str
    features: torch.dtype | None = None
    tf32: bool = False
    polish: float = 0.0

    @property
    def full(self) -> Precision:
        """The same one without half precision."""
        return self if self.features is None else Precision(self.name, None, self.tf32)

    def gradient_scale(self, numbers: int) -> float:
        """Factor on the loss, a power of two, that keeps its gradients within the range of float16.

        The gradient of a mean over many numbers is small, and float16 ends at 6e-8. It is multiplied by a sixty-fourth
        of their count only: gradients of the layers below are sums, and float16 ends at 65504 as well.

        Args:
            numbers: In an image.
        """
        return 2.0 ** round(math.log2(numbers) - 6) if self.features is torch.float16 else 1.0

    @contextmanager
    def rounding(self, device: torch.device) -> Iterator[None]:
        """Let the convolutions of a device round as this precision allows, and choose their fastest algorithms."""
        if device.type != "cuda":
            yield
            return
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=self.tf32):
            yield


PRECISIONS = {
    found.name: found
    for found in (
        Precision("fp32"),
        Precision("tf32", tf32=True),
        Precision("fp16", torch.float16, tf32=True, polish=0.1),
        Precision("bf16", torch.bfloat16, tf32=True, polish=0.1),
    )
}
FULL = PRECISIONS["fp32"]


def find_precision(name: str, generator: AbstractGenerator) -> Precision:
    """The precision called ``name`` for a generator.

    Args:
        name: "fp32", "tf32", "fp16" or "bf16"; "auto" is "fp16" for a float32 generator on a GPU that has features of
            that type, "tf32" for another one there, and "fp32" on the CPU.
        generator: Where it is.

    Raises:
        InputError: If there is no such precision, or the generator does not have it.
    """
    if name == "auto":
        if generator.device.type != "cuda" or generator.dtype is not torch.float32:
            return FULL
        return PRECISIONS["fp16" if torch.float16 in generator.feature_dtypes else "tf32"]
    if name not in PRECISIONS:
        raise InputError(f"precision={name!r} is unknown; use 'auto', {', '.join(map(repr, PRECISIONS))}.")
    found = PRECISIONS[name]
    if found.features is not None and found.features not in generator.feature_dtypes:
        raise InputError(
            f"precision={name!r} needs a generator whose features can be of that type; "
            f"{generator.name or type(generator).__name__} is for 'fp32' and 'tf32'."
        )
    return found

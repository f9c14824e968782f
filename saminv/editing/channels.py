"""The style space S of any generator: what its layers make of the styles, and changes of single channels of it.

Reference:
    Wu et al., 2021, arXiv 2011.12799 (the space S).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..generators import AbstractGenerator, StyleLayer, style_layers
from ._samples import spread_along
from .change import Change


@contextmanager
def shifted(generator: AbstractGenerator, channels: Mapping[str, Tensor]) -> Iterator[None]:
    """While inside, add ``channels`` `[1 or B, C]` to what the style layers of these names make of their styles.

    Raises:
        InputError: If the generator has no module of a name.
    """
    modules = dict(generator.named_modules())
    unknown = [name for name in channels if name not in modules]
    if unknown:
        raise InputError(f"This generator has no style layer {unknown[0]!r}; the direction belongs to another one.")
    handles = [modules[name].register_forward_hook(_adder(change)) for name, change in channels.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adder(change: Tensor) -> Any:
    def add(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return output + change.to(output)

    return add


def channel_deviation(generator: AbstractGenerator, layers: list[StyleLayer], label: Any = None) -> Tensor:
    """Standard deviation of each channel of some layers over random samples, `[sum of C]`."""
    return torch.cat([spread_along(generator, layer.matrix, label) for layer in layers])


def pulled_back(generator: AbstractGenerator, change: Change) -> Tensor:
    """The change of the styles `[1 or B, L, D]` that comes nearest to a change, in least squares over its channels.

    It says how far an edit of the space S goes in units of w.
    """
    total = change.styles
    if not change.channels:
        return total
    for layer in style_layers(generator):
        moved = change.channels.get(layer.name)
        if moved is not None:
            part = moved.double() @ torch.linalg.pinv(layer.matrix.double(), rtol=1e-4).t()
            slot = torch.zeros(total.shape[1], dtype=torch.float64, device=part.device)
            slot[layer.slot] = 1
            total = total + (slot[:, None] * part[:, None]).to(total)
    return total

"""The style space S of any generator: what its layers make of the styles, and changes of single channels of it.

A style layer is a linear layer that reads a style slot or its first numbers: the affine layers of the StyleGANs and the
linear layers of conditional normalisation. They are found by looking at what the modules of a generator are given.

Reference:
    Wu et al., 2021, arXiv 2011.12799 (the space S).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import InputError
from ..generators import AbstractGenerator
from ._samples import spread_along
from .change import Change


@dataclass(frozen=True, eq=False)
class StyleLayer:
    """A linear layer that reads a style.

    Attributes:
        name: Of its module in the generator.
        slot: Style slot that it reads.
        matrix: `[C, D]`, what it multiplies a style with.
        paints: Whether it belongs to a toRGB, which only colours what is there.
    """

    name: str
    slot: int
    matrix: Tensor
    paints: bool

    @property
    def channels(self) -> int:
        """Number C of its channels."""
        return self.matrix.shape[0]


@torch.no_grad()
def style_layers(generator: AbstractGenerator) -> list[StyleLayer]:
    """The style layers of a generator in the order in which they act.

    Raises:
        InputError: If no module reads a style linearly.
    """
    styles = torch.randn(1, generator.num_styles, generator.style_dim, generator=torch.Generator().manual_seed(0))
    styles = styles.to(generator.device, generator.dtype)
    seen: dict[str, tuple[int, int]] = {}
    handles = [
        module.register_forward_hook(_watch(name, styles[0], seen))
        for name, module in generator.named_modules()
        if name
    ]
    try:
        generator.synthesis(styles)
    finally:
        for handle in handles:
            handle.remove()
    modules = dict(generator.named_modules())
    # Of modules around one another, the innermost does the work.
    inner = {name: read for name, read in seen.items() if not any(other.startswith(f"{name}.") for other in seen)}
    found = []
    for name, (slot, width) in inner.items():
        matrix = _matrix(modules[name], styles, width)
        if matrix is not None:
            found.append(StyleLayer(name, slot, matrix, "rgb" in name.lower()))
    if not found:
        raise InputError(
            "No layer of this generator reads its styles linearly, so there is no closed form and no style space for "
            "it; GANSpace, InterFaceGAN and regression work on w."
        )
    return found


def _watch(name: str, styles: Tensor, seen: dict[str, tuple[int, int]]) -> Any:
    """A hook that notes which slot of ``styles`` `[L, D]` a module was given, and how many of its numbers."""

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        given = inputs[0] if inputs else None
        if not isinstance(given, Tensor) or given.dim() != 2 or len(given) != 1:
            return
        width = given.shape[1]
        if not isinstance(output, Tensor) or output.dim() != 2:
            return
        # What stands at the end of a style, such as a truncation, is for no linear layer.
        slots = (styles[:, :width] == given).all(dim=1).nonzero().flatten().tolist() if width <= styles.shape[1] else []
        if slots:
            seen[name] = slots[0], width

    return note


def _matrix(module: nn.Module, styles: Tensor, width: int) -> Tensor | None:
    """The matrix `[C, D]` of a module that reads the first numbers, None if it is not linear up to a constant."""
    eye = torch.eye(width, dtype=styles.dtype, device=styles.device)
    offset = module(torch.zeros_like(eye[:1]))
    matrix = (module(eye) - offset).t()
    probe = styles[0, :1, :width]
    expected = probe @ matrix.t() + offset
    if not torch.allclose(module(probe), expected, rtol=1e-3, atol=1e-4):
        return None
    return F.pad(matrix, (0, styles.shape[2] - width))


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

"""The layers of any generator that read its styles, found by looking at what its modules are given.

A style layer is a linear layer that reads a style slot or its first numbers: the affine layers of the StyleGANs and the
linear layers of conditional normalisation. Their outputs are the style space S.

Reference:
    Wu et al., 2021, arXiv 2011.12799 (the space S).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import InputError

if TYPE_CHECKING:
    from ._base import AbstractGenerator


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


def style_layers(generator: AbstractGenerator) -> list[StyleLayer]:
    """The style layers of a generator in the order in which they act.

    Raises:
        InputError: If no module reads a style linearly.
    """
    found = find_style_layers(generator)
    if not found:
        raise InputError(
            "No layer of this generator reads its styles linearly, so there is no closed form and no style space for "
            "it; GANSpace, InterFaceGAN and regression work on w."
        )
    return found


@torch.no_grad()
def find_style_layers(generator: AbstractGenerator) -> list[StyleLayer]:
    """The same; none where no module reads a style linearly."""
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


def style_matrix(generator: AbstractGenerator, slots: Sequence[int]) -> Tensor:
    """The matrices of the layers that read some slots, on top of each other: `[C, D]`, float64.

    Raises:
        InputError: If the generator has no such layers, or none reads the slots.
    """
    layers = style_layers(generator)
    if not any(layer.slot in slots for layer in layers):
        read = ", ".join(str(slot) for slot in sorted({layer.slot for layer in layers}))
        raise InputError(f"No layer reads the style slots {list(slots)}; those that are read: {read}.")
    return stacked(layers, slots)


def stacked(layers: Sequence[StyleLayer], slots: Sequence[int]) -> Tensor:
    """The matrices of those of some layers that read some slots, on top of each other: `[C, D]`, float64.

    A slot counts by the layers of its convolution; a toRGB counts where its slot has no other layer.
    """
    matrices = []
    for slot in slots:
        reading = [layer for layer in layers if layer.slot == slot]
        chosen = [layer for layer in reading if not layer.paints] or reading
        matrices += [layer.matrix.double() for layer in chosen]
    return torch.cat(matrices)

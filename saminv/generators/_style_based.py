"""What the StyleGANs share: a mapping from noise and label to w, a style slot per layer, truncation to the mean w.

Reference:
    Karras et al., 2019, arXiv 1812.04948 (mapping, truncation); 2020, arXiv 1912.04958 and 2006.06676 (labels).
"""

from __future__ import annotations

import itertools
import math
from abc import ABC
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import InputError
from .._types import Features
from ..sites import Frame, Tap, Taps
from ._base import WEIGHTS, AbstractGenerator
from ._collect import Collector

SLOPE = 0.2


def check_pyramid(resolution: int, table: tuple[int, ...] | None, crop: tuple[int, int] | None) -> None:
    """Check the shape of a generator that doubles its resolution from 4 up.

    Raises:
        InputError: If there is no such resolution, or channels per resolution or the crop do not fit it.
    """
    if resolution < 8 or resolution & (resolution - 1):
        raise InputError(f"resolution must be a power of two from 8 up, got {resolution}.")
    levels = int(math.log2(resolution)) - 1
    if table is not None and not (len(table) == levels and min(table) > 0):
        raise InputError(
            f"channel_table needs a number from 1 up for each of the {levels} resolutions from 4 to {resolution}, got "
            f"{table}."
        )
    if crop is not None and not all(0 < side <= resolution for side in crop):
        raise InputError(f"crop {crop} does not fit the canvas of {resolution} pixels.")


def crop_frame(image_size: tuple[int, int], side: int) -> Frame:
    """Where a picture (height, width) lies that is the middle of a square canvas."""
    height, width = image_size
    left, top = (side - width) / 2 / side, (side - height) / 2 / side
    return (left, top, 1 - left, 1 - top)


def crop_middle(image: Tensor, image_size: tuple[int, int]) -> Tensor:
    """The middle (height, width) of images `[B, C, H, W]`."""
    (height, width), (rows, columns) = image_size, image.shape[2:]
    top, left = (rows - height) // 2, (columns - width) // 2
    return image[:, :, top : top + height, left : left + width]


class Kept:
    """What a function makes of a weight, kept while the weight neither asks for a gradient nor changes."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        self._key: tuple[object, ...] | None = None
        self._value: Tensor | None = None

    def __call__(self, weight: Tensor) -> Tensor:
        # What is no parameter is a weight of some image's own; it goes away, and another one may take its place.
        if weight.requires_grad or not isinstance(weight, nn.Parameter):
            return self.function(weight)
        key = (weight._version, weight.data_ptr(), weight.dtype, weight.device)
        if self._value is None or key != self._key:
            with torch.no_grad():
                self._key, self._value = key, self.function(weight)
        return self._value

    def __deepcopy__(self, memo: object) -> Kept:
        return Kept(self.function)


def normalise(x: Tensor) -> Tensor:
    """Divide each row of `[B, D]` by its root mean square."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class EqualLinear(nn.Module):
    """Linear layer that scales its weight by ``gain * multiplier / sqrt(inputs)`` and its bias by ``multiplier``."""

    def __init__(
        self, inputs: int, outputs: int, bias: float = 0.0, multiplier: float = 1.0, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias / multiplier))
        self.gain, self.multiplier = gain * multiplier / math.sqrt(inputs), multiplier

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.gain, self.bias * self.multiplier)


class MappingNetwork(nn.Module):
    """Noise `[B, z_dim]` and label `[B, label_dim]` to w `[B, w_dim]`.

    Args:
        z_dim: Length of the noise.
        w_dim: Length of w.
        label_dim: Number of classes, 0 without.
        depth: Number of layers.
        width: Of the layers before the last; ``w_dim`` where None.
        embed_dim: Of the label embedding; ``w_dim`` where None.
        multiplier: Runtime gain of the layers.
        together: Normalise noise and label embedding as one vector, not apart.
    """

    def __init__(
        self,
        z_dim: int,
        w_dim: int,
        label_dim: int = 0,
        *,
        depth: int = 8,
        width: int | None = None,
        embed_dim: int | None = None,
        multiplier: float = 0.01,
        together: bool = False,
    ) -> None:
        super().__init__()
        embed = (embed_dim or w_dim) if label_dim else 0
        widths = [z_dim + embed, *[width or w_dim] * (depth - 1), w_dim]
        self.together = together
        self.embed: nn.Module | None = None
        if embed:
            self.embed = nn.Linear(label_dim, embed, bias=False) if together else EqualLinear(label_dim, embed)
        self.layers = nn.ModuleList(EqualLinear(a, b, multiplier=multiplier) for a, b in itertools.pairwise(widths))

    def forward(self, z: Tensor, label: Tensor | None) -> Tensor:
        if self.embed is None:
            x = normalise(z)
        elif self.together:
            x = normalise(torch.cat([z, self.embed(label)], dim=1))
        else:
            x = torch.cat([normalise(z), normalise(self.embed(label))], dim=1)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE) * math.sqrt(2)
        return x


class AbstractStyleGAN(AbstractGenerator, ABC):
    """A generator whose layers read styles that a mapping network makes of noise.

    Attributes:
        mapping_network: Noise and label to w.
        w_avg: Mean w `[D]`, towards which truncation goes.
        truncation_cutoff: How many slots truncation changes by itself; all where None.
    """

    mapping_network: nn.Module
    w_avg: Tensor
    truncation_cutoff: int | None = None

    def mapping(
        self,
        z: Tensor,
        label: Tensor | int | None = None,
        truncation: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """Map noise `[B, z_dim]` to styles `[B, L, D]`.

        Args:
            z: Noise; its length does not matter, it is normalised.
            label: Class number, vector or batch of vectors.
            truncation: Interpolation from the mean w (0) to w itself (1).
            truncation_cutoff: Truncate only so many slots, the first ones; as the generator does by itself where None.
        """
        if z.dim() != 2 or z.shape[1] != self.z_dim:
            raise InputError(f"z must have shape [B, {self.z_dim}], got {list(z.shape)}.")
        w = self.mapping_network(z, self.label_tensor(label, z.shape[0]))
        styles = w[:, None].repeat(1, self.num_styles, 1)
        return self._truncate(styles, truncation, truncation_cutoff)

    def _truncate(self, styles: Tensor, truncation: float, cutoff: int | None = None) -> Tensor:
        if truncation == 1:
            return styles
        low, cutoff = self.w_avg.lerp(styles, truncation), self.truncation_cutoff if cutoff is None else cutoff
        return low if cutoff is None else torch.cat([low[:, :cutoff], styles[:, cutoff:]], dim=1)

    def _styles(self, styles: Tensor, taps: Taps, truncation: float) -> Tensor:
        """Styles `[B, L, D]` as the layers read them; w `[B, D]` is repeated."""
        if styles.dim() == 2:
            styles = styles[:, None].expand(-1, self.num_styles, -1)
        styles = self._truncate(taps.apply("styles", styles), truncation)
        if styles.dim() != 3 or tuple(styles.shape[1:]) != (self.num_styles, self.style_dim):
            raise InputError(
                f"styles must have shape [B, {self.num_styles}, {self.style_dim}], got {list(styles.shape)}."
            )
        return styles

    def _render(
        self,
        layers: Callable[[Tensor, Taps, Collector], Tensor | None],
        styles: Tensor,
        taps: Iterable[Tap] | Taps,
        noise: str,
        truncation: float,
        until: str | Sequence[str] | None,
    ) -> Tensor | Features:
        """The body of ``synthesis``: ``layers`` runs until the collector has what it wants, or returns the picture."""
        acts = taps if isinstance(taps, Taps) else Taps(taps, self.sites)
        if WEIGHTS in acts:
            return self._by_own_weights(
                lambda own, rest: self._render(layers, own, rest, noise, truncation, until), styles, acts
            )
        collect = Collector(until, self.sites, styles.dtype)
        styles = self._styles(styles, acts, truncation)
        image = None if collect.see("styles", styles) else layers(styles, acts, collect)
        return collect.result(image, noise)

    def forward(self, z: Tensor, label: Tensor | int | None = None, truncation: float = 1.0) -> Tensor:
        """Noise `[B, z_dim]` to image `[B, 3, H, W]`."""
        image = self.synthesis(self.mapping(z, label, truncation))
        assert isinstance(image, Tensor)
        return image

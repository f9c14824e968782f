"""What the StyleGANs share: a mapping from noise and label to w, a style slot per layer, truncation to the mean w.

Reference:
    Karras et al., 2019, arXiv 1812.04948 (mapping, truncation); 2020, arXiv 1912.04958 and 2006.06676 (labels).
"""

from __future__ import annotations

import itertools
import math
from abc import ABC

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import InputError
from ..sites import Taps
from ._base import AbstractGenerator

SLOPE = 0.2


def normalise(x: Tensor) -> Tensor:
    """Divide each row of `[B, D]` by its root mean square."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class EqualLinear(nn.Module):
    """Linear layer whose weight is scaled at run time by ``multiplier / sqrt(inputs)``."""

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias / multiplier))
        self.gain, self.multiplier = multiplier / math.sqrt(inputs), multiplier

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
    ) -> None:
        super().__init__()
        embed = (embed_dim or w_dim) if label_dim else 0
        widths = [z_dim + embed, *[width or w_dim] * (depth - 1), w_dim]
        self.embed = EqualLinear(label_dim, embed) if embed else None
        self.layers = nn.ModuleList(EqualLinear(a, b, multiplier=multiplier) for a, b in itertools.pairwise(widths))

    def forward(self, z: Tensor, label: Tensor | None) -> Tensor:
        x = normalise(z)
        if self.embed is not None:
            x = torch.cat([x, normalise(self.embed(label))], dim=1)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE) * math.sqrt(2)
        return x


class AbstractStyleGAN(AbstractGenerator, ABC):
    """A generator whose layers read styles that a mapping network makes of noise.

    Attributes:
        mapping_network: Noise and label to w.
        w_avg: Mean w `[D]`, towards which truncation goes.
    """

    mapping_network: nn.Module
    w_avg: Tensor

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
            truncation_cutoff: Truncate only the first slots; all where None.
        """
        if z.dim() != 2 or z.shape[1] != self.z_dim:
            raise InputError(f"z must have shape [B, {self.z_dim}], got {list(z.shape)}.")
        w = self.mapping_network(z, self.label_tensor(label, z.shape[0]))
        styles = w[:, None].repeat(1, self.num_styles, 1)
        return self._truncate(styles, truncation, truncation_cutoff)

    def _truncate(self, styles: Tensor, truncation: float, cutoff: int | None = None) -> Tensor:
        if truncation == 1:
            return styles
        low = self.w_avg.lerp(styles, truncation)
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

    def forward(self, z: Tensor, label: Tensor | int | None = None, truncation: float = 1.0) -> Tensor:
        """Noise `[B, z_dim]` to image `[B, 3, H, W]`."""
        image = self.synthesis(self.mapping(z, label, truncation))
        assert isinstance(image, Tensor)
        return image

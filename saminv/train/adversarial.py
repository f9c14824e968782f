"""Residual discriminator of StyleGAN2 and the losses of adversarial training.

Reference:
    Karras et al., 2020, arXiv 1912.04958 (architecture, path lengths, lazy regularisation); Mescheder et al., 2018,
    arXiv 1801.04406 (R1).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..generators._style_based import EqualLinear, check_pyramid
from ..ops.fir import blur

SPREAD_EPS = 1e-8
"""Added to variances over a batch, so that a batch of equal images has a gradient."""
TAPS = (1, 3, 3, 1)
"""Of the filter before a halving, where there is one."""


class _Conv(nn.Module):
    """Convolution with equalised learning rate, optional halving of the size, leaky ReLU.

    Its result is multiplied by ``scale``, and by the gain of the leaky ReLU, as a part of weight and bias: so neither
    large maps nor their gradients are multiplied once more.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        down: bool = False,
        activate: bool = True,
        filtered: bool = False,
        clamp: float | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if activate else None
        self.scale = scale * (math.sqrt(2) if activate else 1.0)
        self.gain = self.scale / math.sqrt(inputs * kernel * kernel)
        self.clamp = None if clamp is None else scale * clamp
        self.pools, self.filters = down and not filtered, down and filtered

    def forward(self, x: Tensor) -> Tensor:
        weight, pad = (self.weight * self.gain).to(x.dtype), self.weight.shape[-1] // 2
        bias = None if self.bias is None else (self.bias * self.scale).to(x.dtype)
        if self.filters:
            # One pixel more on each side, for the filter of four taps: the result has half the size.
            x = F.conv2d(blur(x, TAPS, gain=1.0, padding=(pad + 1, pad + 1)), weight, bias, stride=2)
        else:
            x = F.conv2d(F.avg_pool2d(x, 2) if self.pools else x, weight, bias, padding=pad)
        if bias is None:
            return x
        x = F.leaky_relu(x, 0.2)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, filtered: bool, clamp: float | None) -> None:
        super().__init__()
        share = math.sqrt(0.5)
        self.first = _Conv(inputs, inputs, 3, clamp=clamp)
        self.second = _Conv(inputs, outputs, 3, down=True, filtered=filtered, clamp=clamp, scale=share)
        self.skip = _Conv(inputs, outputs, 1, down=True, activate=False, filtered=filtered, scale=share)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.second(self.first(x))


class Discriminator(nn.Module):
    """Realness of images `[B, 3, R, R]` as logits `[B]`.

    Args:
        resolution: Side R, a power of two.
        channel_base, channel_max: Channels at resolution r are ``min(channel_base // r, channel_max)``.
        group: Images over which the deviation is taken that tells a lack of variety; the whole batch where None. A
            batch that it does not divide is one group.
        channel_table: Channels at 4, 8 and so on up to R, instead.
        filtered: Filter by 1, 3, 3, 1 before every halving, as published networks do, instead of averaging.
        clamp: Largest magnitude of what layers of convolution give; None for any.

    Raises:
        InputError: If there is no such resolution, or the table does not fit it.
    """

    def __init__(
        self,
        resolution: int,
        channel_base: int = 2048,
        channel_max: int = 128,
        *,
        group: int | None = None,
        channel_table: Sequence[int] | None = None,
        filtered: bool = False,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        table = None if channel_table is None else tuple(channel_table)
        check_pyramid(resolution, table, None)
        self.resolution, self.group, self.filtered, self.clamp = resolution, group, filtered, clamp
        sizes = [resolution >> i for i in range(int(math.log2(resolution)) - 1)]
        channels = [min(channel_base // size, channel_max) for size in sizes] if table is None else table[::-1]
        self.entry = _Conv(3, channels[0], 1, clamp=clamp)
        self.blocks = nn.ModuleList(_Block(a, b, filtered, clamp) for a, b in itertools.pairwise(channels))
        self.last = _Conv(channels[-1] + 1, channels[-1], 3, clamp=clamp)
        self.hidden = EqualLinear(channels[-1] * 16, channels[-1])
        self.out = EqualLinear(channels[-1], 1)
        self.to(memory_format=torch.channels_last)

    @property
    def settings(self) -> dict[str, Any]:
        """What its arrays do not show, as plain values."""
        return {"group": self.group, "filtered": self.filtered, "clamp": self.clamp}

    def forward(self, image: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Logits of images; features larger than 4x4 are computed in ``dtype``, that of the images where None."""
        x = self.entry(image if dtype is None else image.to(dtype))
        for block in self.blocks:
            x = block(x)
        x = x.to(image.dtype)
        x = self.last(torch.cat([x, self._spread(x)], dim=1))
        return self.out(F.leaky_relu(self.hidden(x.flatten(1)), 0.2) * math.sqrt(2))[:, 0]

    def _spread(self, x: Tensor) -> Tensor:
        """Mean deviation of the features over the images of a group, as a map `[B, 1, 4, 4]`."""
        batch, group = len(x), self.group or len(x)
        group = group if batch % group == 0 else batch
        # Groups of images that lie apart, as in the published code.
        parts = x.reshape(group, batch // group, *x.shape[1:])
        deviation = (parts.var(dim=0, unbiased=False) + SPREAD_EPS).sqrt().mean(dim=(1, 2, 3))
        return deviation.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])


def generator_loss(fake: Tensor) -> Tensor:
    """Non-saturating loss of the logits `[B]` of generated images."""
    return F.softplus(-fake).mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Logistic loss of the logits `[B]` of real and generated images."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def gradient_penalty(real: Tensor, logits: Tensor) -> Tensor:
    """R1: squared gradient norm of the logits `[B]` at real images, halved and averaged."""
    (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return 0.5 * gradient.square().sum(dim=(1, 2, 3)).mean()


class PathLength(nn.Module):
    """Path length regularisation: steps in w are to change the image by as much everywhere.

    The lengths are those of the gradients by the styles of ``sum(image * y)``, where y is noise of variance 1 / (H W).
    The penalty is their squared distance from their running mean. Weight and lengths are those of the published code: a
    length is the root mean square over the style slots.

    Attributes:
        mean: Running mean of the lengths `[]`; 0 at first.

    Reference:
        Karras et al., 2020, arXiv 1912.04958, Eq. 4.
    """

    mean: Tensor

    def __init__(self, rate: float = 0.01) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, images: Tensor, styles: Tensor) -> Tensor:
        """Penalty `[]` of images `[B, 3, H, W]` that were rendered from styles `[B, L, D]`; moves the running mean."""
        noise = torch.randn_like(images) / math.sqrt(images.shape[2] * images.shape[3])
        (gradient,) = torch.autograd.grad((images * noise).sum(), styles, create_graph=True)
        lengths = gradient.square().sum(dim=2).mean(dim=1).sqrt()
        mean = self.mean.lerp(lengths.detach().mean(), self.rate)
        # A length that is not finite is no length to aim at; the step is left out by the trainer.
        self.mean.copy_(torch.where(torch.isfinite(mean), mean, self.mean))
        return (lengths - self.mean).square().mean()

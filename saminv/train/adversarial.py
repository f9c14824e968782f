"""Residual discriminator of StyleGAN2 and the losses of adversarial training.

Reference:
    Karras et al., 2020, arXiv 1912.04958 (architecture, lazy regularisation); Mescheder et al., 2018,
    arXiv 1801.04406 (R1).
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Conv(nn.Module):
    """Convolution with equalised learning rate, optional halving of the size, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, down: bool = False, activate: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if activate else None
        self.gain, self.down = 1 / math.sqrt(inputs * kernel * kernel), down

    def forward(self, x: Tensor) -> Tensor:
        if self.down:
            x = F.avg_pool2d(x, 2)
        x = F.conv2d(x, self.weight * self.gain, self.bias, padding=self.weight.shape[-1] // 2)
        return x if self.bias is None else F.leaky_relu(x, 0.2) * math.sqrt(2)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = _Conv(inputs, inputs, 3), _Conv(inputs, outputs, 3, down=True)
        self.skip = _Conv(inputs, outputs, 1, down=True, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.skip(x) + self.second(self.first(x))) * math.sqrt(0.5)


class Discriminator(nn.Module):
    """Realness of images `[B, 3, R, R]` as logits `[B]`.

    Args:
        resolution: Side R, a power of two.
        channel_base, channel_max: Channels at resolution r are ``min(channel_base // r, channel_max)``.
    """

    def __init__(self, resolution: int, channel_base: int = 2048, channel_max: int = 128) -> None:
        super().__init__()
        sizes = [resolution >> i for i in range(int(math.log2(resolution)) - 1)]
        channels = [min(channel_base // size, channel_max) for size in sizes]
        self.entry = _Conv(3, channels[0], 1)
        self.blocks = nn.ModuleList(_Block(a, b) for a, b in itertools.pairwise(channels))
        self.last = _Conv(channels[-1] + 1, channels[-1], 3)
        self.hidden = nn.Linear(channels[-1] * 16, channels[-1])
        self.out = nn.Linear(channels[-1], 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        x = self.entry(image)
        for block in self.blocks:
            x = block(x)
        spread = x.std(dim=0, unbiased=False).mean().expand(x.shape[0], 1, *x.shape[2:])
        x = self.last(torch.cat([x, spread], dim=1))
        return self.out(F.leaky_relu(self.hidden(x.flatten(1)), 0.2))[:, 0]


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

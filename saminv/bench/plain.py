"""StyleGAN2 in its usual formulation, to compare with.

Weights are modulated for each image, and all gradients are autograd's. The gradient of the styles then goes through the
gradient of every image's own weights.

Reference:
    Karras et al., 2020, arXiv 1912.04958, Eq. 1 to 3, as a grouped convolution.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..generators.stylegan2 import SLOPE, ModulatedLayer, StyleGAN2
from ..ops.fir import blur
from ..sites import Add

EPS = 1e-8


class PlainLayer(ModulatedLayer):
    """A layer that modulates its weights instead of its activations."""

    def forward(
        self,
        x: Tensor,
        w: Tensor,
        noise: Tensor | None,
        gain: float = 1.0,
        ring: Tensor | None = None,
        change: Add | None = None,
    ) -> Tensor:
        assert ring is None, "the plain formulation knows no padding"
        styles = self.affine(w)
        x = grouped_conv2d(x.contiguous(), self.weight, styles, self.up)
        if noise is not None:
            x = x + noise * self.noise_strength
        x = F.leaky_relu(x + self.bias[None, :, None, None], SLOPE) * (math.sqrt(2) * gain)
        x = x if self.clamp is None else x.clamp(-self.clamp * gain, self.clamp * gain)
        return x if change is None else change.apply(x)


def grouped_conv2d(x: Tensor, weight: Tensor, styles: Tensor, up: int) -> Tensor:
    """Modulated and demodulated convolution as one group for each image.

    Args:
        x: `[B, I, h, w]`.
        weight: `[O, I, 3, 3]`.
        styles: `[B, I]`.
        up: 1, or 2 for a transposed convolution and its filter.
    """
    batch, _, height, width = x.shape
    kernels = weight[None] * styles[:, None, :, None, None]
    kernels = kernels * torch.rsqrt(kernels.square().sum(dim=(2, 3, 4), keepdim=True) + EPS)
    x = x.reshape(1, -1, height, width)
    if up == 1:
        x = F.conv2d(x, kernels.flatten(0, 1), padding=1, groups=batch)
    else:
        x = F.conv_transpose2d(x, kernels.transpose(1, 2).flatten(0, 1), stride=2, groups=batch)
    x = x.reshape(batch, -1, *x.shape[2:])
    return x if up == 1 else blur(x, impl="reference")


def plain(generator: StyleGAN2) -> StyleGAN2:
    """The same generator in the usual formulation, in contiguous memory."""
    other = copy.deepcopy(generator).to(memory_format=torch.contiguous_format)
    for layer in other.layers:
        layer.__class__ = PlainLayer
    return other

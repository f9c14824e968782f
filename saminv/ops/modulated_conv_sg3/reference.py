"""Plain torch StyleGAN3 modulated convolution: y = d * conv(g * s * x, W)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-8


def modulated_conv_sg3(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    demodulate: bool,
    padding: int,
    input_gain: Tensor | None,
    couple_batch: bool,
) -> Tensor:
    """See :func:`saminv.ops.modulated_conv_sg3.modulated_conv_sg3`."""
    if demodulate:
        weight = weight * _inverse_rms(weight, (1, 2, 3))
        styles = styles * _inverse_rms(styles, (0, 1) if couple_batch else (1,))
    scale = styles if input_gain is None else styles * input_gain
    y = F.conv2d(x * scale[:, :, None, None], weight, padding=padding)
    if not demodulate:
        return y
    # The norm is of the kernel with styles and without the input gain.
    norm = torch.rsqrt(styles.square() @ weight.square().sum(dim=(2, 3)).t() + EPS)
    return y * norm[:, :, None, None]


def _inverse_rms(tensor: Tensor, dims: tuple[int, ...]) -> Tensor:
    return tensor.square().mean(dim=dims, keepdim=True).rsqrt()

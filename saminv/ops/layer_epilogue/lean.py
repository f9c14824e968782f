"""The layer epilogue in plain torch with a backward of its own, which keeps no more than the result.

With ``u = gain * (d * x + noise + bias)``, of which the leaky ReLU makes the result y, and g the gradient of y, the
gradient of u is g times the slope that the sign of y tells. What the derivative by d needs follows without x:
``sum(grad_u * u) = sum(g * y)`` over the pixels where the clamp is not active, and u is a sum of which only ``d * x``
is no small tensor. The next layer keeps y anyway. What half precision rounds to the clamp counts as clamped.

Both directions go through a feature band by band, so that what lies between the steps stays in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._layout import bands, dense, memory_format
from .._precision import widen
from ..fir.reference import blur as filter_blur
from .reference import GAIN, TAPS

REACH = len(TAPS) - 1


@dataclass(frozen=True)
class _Settings:
    slope: float
    gain: float
    clamp: float | None
    blur: int | None
    overwrite: bool


class _LayerEpilogue(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        x, scale, bias, noise, delta, mask, settings = arguments
        source = x if settings.blur is None else filter_blur(widen(x), TAPS, GAIN, (settings.blur, settings.blur))
        # What the filter gave is ours to write to.
        ours = settings.overwrite and delta is None if source is x else source.dtype == x.dtype
        y = source if ours else torch.empty_like(source, dtype=x.dtype)
        if y is x:
            ctx.mark_dirty(x)
        # The sign of what the leaky ReLU gave cannot be told from its sum with a change.
        activation = y if delta is None else torch.empty_like(y)
        for first, last in bands(y):
            rows = slice(first, last)
            band = _activate(source[:, :, rows], scale, bias, _part(noise, rows), settings, activation[:, :, rows])
            if delta is not None:
                change = widen(delta[:, :, rows])
                y[:, :, rows].copy_(band + (change if mask is None else change * mask[:, :, rows]))
        ctx.save_for_backward(scale, bias, noise, delta, mask, y, None if delta is None else activation)
        ctx.settings = settings
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scale, bias, noise, delta, mask, y, activation = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=memory_format(y))
        grad_delta = None
        if ctx.needs_input_grad[4]:
            grad_delta = (gradient if mask is None else widen(gradient) * mask).to(delta.dtype)
        signs = y if activation is None else activation
        sums = _Sums(scale, bias, noise, ctx.settings, ctx.needs_input_grad)
        grad_x: Tensor | None = None
        if torch.is_grad_enabled():
            if activation is not None:
                # The same numbers, which know where they came from.
                activation = widen(y) - (widen(delta) if mask is None else widen(delta) * mask)
            through = sums.add(gradient, y if activation is None else activation, signs, noise)
            grad_x = (through * sums.factor).to(y.dtype)
        else:
            grad_x = torch.empty_like(gradient) if ctx.needs_input_grad[0] else None
            for first, last in bands(signs):
                rows = slice(first, last)
                through = sums.add(gradient[:, :, rows], signs[:, :, rows], signs[:, :, rows], _part(noise, rows))
                if grad_x is not None:
                    torch.mul(through, sums.factor, out=grad_x[:, :, rows])
        if grad_x is not None and ctx.settings.blur is not None:
            grad_x = filter_blur(grad_x, TAPS, GAIN, (REACH - ctx.settings.blur,) * 2)
        return grad_x, *sums.gradients(), grad_delta, None, None


class _Sums:
    """Derivatives by the small tensors, from sums over the bands that it has seen."""

    def __init__(
        self, scale: Tensor, bias: Tensor | None, noise: Tensor | None, settings: _Settings, needed: tuple[bool, ...]
    ) -> None:
        self.scale, self.bias, self.noise, self.settings = scale, bias, noise, settings
        self.by_scale, self.by_bias, self.by_noise = needed[1:4]
        self.factor = (widen(scale) * settings.gain)[:, :, None, None]
        self.products: list[Tensor] = []
        self.through: list[Tensor] = []
        self.noisy: list[Tensor] = []
        self.pixels: list[Tensor] = []

    def add(self, gradient: Tensor, value: Tensor, signs: Tensor, noise: Tensor | None) -> Tensor:
        """See a band of the gradient and of the result; returns the gradient of u."""
        gradient, slope, clamp = widen(gradient), self.settings.slope, self.settings.clamp
        if clamp is not None:
            # As the clamp reads in the type of the result. What is not a number is not clamped.
            clamp = float(torch.tensor(clamp, dtype=signs.dtype))
            gradient = gradient.masked_fill(signs.abs() >= clamp, 0.0)
        through = torch.ops.aten.leaky_relu_backward(gradient, widen(signs), slope, True)
        if self.by_scale:
            self.products.append((gradient * value).sum(dim=(2, 3)))
        if self.by_bias or (self.by_scale and self.bias is not None):
            self.through.append(through.sum(dim=(2, 3)))
        if self.by_scale and noise is not None:
            self.noisy.append((through * noise).sum(dim=(2, 3)))
        if self.by_noise:
            self.pixels.append(through.sum(dim=1, keepdim=True))
        return through

    def gradients(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """By scale, bias and noise; None where they are not needed."""
        gain, by_scale, by_bias, by_noise = self.settings.gain, None, None, None
        if self.by_scale:
            rest = _total(self.products)
            if self.bias is not None:
                rest = rest - _total(self.through) * (widen(self.bias) * gain)
            if self.noise is not None:
                rest = rest - _total(self.noisy) * gain
            by_scale = (rest / widen(self.scale)).to(self.scale.dtype)
        if self.by_bias and self.bias is not None:
            by_bias = (_total(self.through).sum(dim=0) * gain).to(self.bias.dtype)
        if self.by_noise and self.noise is not None:
            by_noise = torch.cat(self.pixels, dim=2) * gain
            by_noise = by_noise.sum_to_size(self.noise.shape).to(self.noise.dtype)
        return by_scale, by_bias, by_noise


def _activate(
    x: Tensor, scale: Tensor, bias: Tensor | None, noise: Tensor | None, settings: _Settings, into: Tensor
) -> Tensor:
    """A band of the activation, written to ``into`` and returned in the precision in which it was computed."""
    x = widen(x)
    y = into if into.dtype == x.dtype else torch.empty_like(x)
    # In the order of the reference, which decides about signs.
    torch.mul(x, (widen(scale) * settings.gain)[:, :, None, None], out=y)
    if noise is not None:
        y += noise * settings.gain
    if bias is not None:
        y += (widen(bias) * settings.gain)[None, :, None, None]
    F.leaky_relu(y, settings.slope, inplace=True)
    if settings.clamp is not None:
        y.clamp_(-settings.clamp, settings.clamp)
    if y is not into:
        into.copy_(y)
    return y


def _part(noise: Tensor | None, rows: slice) -> Tensor | None:
    return None if noise is None else widen(noise[:, :, rows])


def _total(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(dim=0)


def layer_epilogue(
    x: Tensor,
    demodulation: Tensor,
    bias: Tensor | None = None,
    noise: Tensor | None = None,
    delta: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    slope: float = 0.2,
    gain: float = 1.0,
    clamp: float | None = None,
    blur: int | None = None,
    overwrite: bool = False,
) -> Tensor:
    """See :func:`saminv.ops.layer_epilogue.layer_epilogue`."""
    settings = _Settings(slope, gain, clamp, blur, overwrite)
    # Outside of the function, so that second derivatives see it.
    result: Tensor = _LayerEpilogue.apply(dense(x), demodulation, bias, noise, delta, mask, settings)
    return result

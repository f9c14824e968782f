"""StyleGAN2 in plain torch, lean formulation.

Layers are counted from 0 at 4x4, as in the SAM report: ``layers[l]`` writes the feature ``F<l>``, reads style slot l,
and the toRGB that follows it reads slot l + 1.

Reference:
    Karras et al., 2020, arXiv 1912.04958 (architecture), arXiv 2006.06676 (clamp, labels).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import InputError
from .._types import Features
from ..ops.fir import upsample_rgb
from ..ops.instance_padding import ring_length
from ..ops.layer_epilogue import layer_epilogue
from ..ops.modulated_conv import demodulation, modulated_conv2d, squared_weight
from ..ops.to_rgb import to_rgb
from ..sites import Add, Site, Tap, Taps
from ._base import FAMILIES, check_noise
from ._collect import Collector
from ._style_based import (
    SLOPE,
    AbstractStyleGAN,
    EqualLinear,
    Kept,
    MappingNetwork,
    check_pyramid,
    crop_frame,
    crop_middle,
)

ARCHITECTURES = ("skip", "orig", "resnet")
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class StyleGAN2Config:
    """Everything that fixes the shape of a StyleGAN2.

    Attributes:
        resolution: Side of the square canvas, a power of two from 8 up.
        channel_base, channel_max: Channels at resolution r are ``min(channel_base // r, channel_max)``.
        channel_table: Channels at each resolution from 4 up, instead of these two.
        mapping_width: Width of the hidden mapping layers; ``w_dim`` where None.
        learning_rate_multiplier: Runtime gain of the mapping layers.
        embed_dim: Width of the label embedding; ``w_dim`` where None.
        label_with_noise: The mapping normalises noise and label embedding as one vector, as the original code does, not
            apart, as from StyleGAN2-ADA on.
        clamp: Bound on activations, None without.
        crop: (height, width) of the picture in the middle of the canvas; the whole canvas where None.
    """

    resolution: int = 256
    z_dim: int = 512
    w_dim: int = 512
    label_dim: int = 0
    channel_base: int = 32768
    channel_max: int = 512
    channel_table: tuple[int, ...] | None = None
    mapping_layers: int = 8
    mapping_width: int | None = None
    learning_rate_multiplier: float = 0.01
    embed_dim: int | None = None
    label_with_noise: bool = False
    architecture: str = "skip"
    clamp: float | None = None
    image_channels: int = 3
    crop: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_pyramid(self.resolution, self.channel_table, self.crop)
        if self.architecture not in ARCHITECTURES:
            raise InputError(f"architecture must be one of {', '.join(ARCHITECTURES)}; got {self.architecture!r}.")

    @property
    def num_layers(self) -> int:
        """Number of modulated 3x3 convolutions."""
        return 2 * int(math.log2(self.resolution)) - 3

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the picture."""
        return (self.crop[0], self.crop[1]) if self.crop else (self.resolution, self.resolution)

    def layer_resolution(self, layer: int) -> int:
        """Output side of convolution layer ``layer``."""
        return 4 << ((layer + 1) // 2)

    def channels(self, resolution: int) -> int:
        """Channels at a resolution."""
        if self.channel_table is not None:
            return self.channel_table[int(math.log2(resolution)) - 2]
        return min(self.channel_base // resolution, self.channel_max)


def _narrowed(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A kernel `[O, I, 3, 3]` in another type, such that sums of its products with numbers near 1 are near 1."""
    return (weight / math.sqrt(weight[0].numel())).to(dtype)


class ModulatedLayer(nn.Module):
    """Modulated convolution, noise, bias, leaky ReLU, gain, clamp: one feature ``F<l>``."""

    def __init__(
        self, inputs: int, outputs: int, resolution: int, style_dim: int, up: int, clamp: float | None
    ) -> None:
        super().__init__()
        self.up, self.clamp = up, clamp
        self.affine = EqualLinear(style_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.noise_const: Tensor
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self._squares = Kept(squared_weight)
        self._typed = {dtype: Kept(functools.partial(_narrowed, dtype=dtype)) for dtype in HALF}

    def forward(
        self,
        x: Tensor,
        w: Tensor,
        noise: Tensor | None,
        gain: float = 1.0,
        ring: Tensor | None = None,
        change: Add | None = None,
    ) -> Tensor:
        noise = None if noise is None else noise * self.noise_strength
        styles = self.affine(w)
        weight: Tensor = self.weight
        scale = demodulation(styles, self._squares(weight))
        if x.dtype in HALF and x.dtype is not weight.dtype:
            # The same product by factors that half precision can hold. Their gradients do not notice: what one factor
            # gains another one loses.
            unit, peak = math.sqrt(weight[0].numel()), styles.detach().abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
            weight, styles, scale = self._typed[x.dtype](weight), styles / peak, scale * (unit * peak)
            ring = None if ring is None else ring / (peak if self.up == 1 else unit * peak)[:, :, None]
        # The epilogue filters what was up-sampled, so that a kernel can do both at once.
        x = modulated_conv2d(x, weight, styles, demodulate=False, up=self.up, ring=ring, filtered=False)
        delta, mask = (None, None) if change is None else (change.delta, change.mask)
        clamp = None if self.clamp is None else self.clamp * gain
        blur = None if self.up == 1 else 1 if ring is None else 0
        gain *= math.sqrt(2)
        # Nobody else sees what the convolution gave.
        return layer_epilogue(
            x,
            scale,
            self.bias,
            noise,
            delta,
            mask,
            slope=SLOPE,
            gain=gain,
            clamp=clamp,
            blur=blur,
            overwrite=True,
        )


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation; the styles carry the weight's scale."""

    def __init__(self, inputs: int, outputs: int, style_dim: int, clamp: float | None) -> None:
        super().__init__()
        self.clamp, self.gain = clamp, 1 / math.sqrt(inputs)
        self.affine = EqualLinear(style_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor, skip: Tensor | None = None) -> Tensor:
        image = to_rgb(x, self.weight.to(x.dtype), self.affine(w) * self.gain, self.bias, skip, clamp=self.clamp)
        return image.to(w.dtype)


class SkipConv(nn.Module):
    """Linear up-sampling 1x1 convolution of the residual architecture."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))
        self.gain = math.sqrt(0.5) / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return upsample_rgb(F.conv2d(x, (self.weight * self.gain).to(x.dtype)))


@FAMILIES.register("stylegan2")
class StyleGAN2(AbstractStyleGAN):
    """StyleGAN2 generator with skip, orig or resnet architecture.

    Raises:
        InputError: From the configuration, or for labels, noise modes and sites that it does not have.
    """

    family = "stylegan2"
    configuration = StyleGAN2Config
    feature_dtypes = frozenset(HALF)

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.config = config
        self.image_size, self.z_dim, self.label_dim = config.image_size, config.z_dim, config.label_dim
        self.num_styles, self.style_dim = config.num_layers + 1, config.w_dim
        self.const = nn.Parameter(torch.randn(config.channels(4), 4, 4))
        self.mapping_network = MappingNetwork(
            config.z_dim,
            config.w_dim,
            config.label_dim,
            depth=config.mapping_layers,
            width=config.mapping_width,
            embed_dim=config.embed_dim,
            multiplier=config.learning_rate_multiplier,
            together=config.label_with_noise,
        )
        self.register_buffer("w_avg", torch.zeros(config.w_dim))
        self.layers = nn.ModuleList(self._layer(i) for i in range(config.num_layers))
        self.torgb = nn.ModuleDict({str(i): self._torgb(i) for i in self._rgb_layers()})
        pairs = range(1, config.num_layers, 2) if config.architecture == "resnet" else ()
        self.skips = nn.ModuleDict({str(i + 1): SkipConv(*self._widths(i)) for i in pairs})
        self.sites = self._announce()
        # Up to F10 as in the SAM report, but not the last resolution: it is one toRGB away from the picture.
        spaces = [f"F{i}" for i in range(4, min(config.num_layers - 1, 11), 2)]
        self.default_spaces = ("W+", *spaces)
        self.to(memory_format=torch.channels_last)

    def _widths(self, layer: int) -> tuple[int, int]:
        resolution = self.config.layer_resolution
        return self.config.channels(resolution(max(layer - 1, 0))), self.config.channels(resolution(layer))

    def _layer(self, index: int) -> ModulatedLayer:
        inputs, outputs = self._widths(index)
        up = 2 if index % 2 else 1
        return ModulatedLayer(
            inputs, outputs, self.config.layer_resolution(index), self.style_dim, up, self.config.clamp
        )

    def _rgb_layers(self) -> list[int]:
        last = self.config.num_layers - 1
        return list(range(0, last + 1, 2)) if self.config.architecture == "skip" else [last]

    def _torgb(self, layer: int) -> ToRGB:
        config = self.config
        return ToRGB(self._widths(layer)[1], config.image_channels, self.style_dim, config.clamp)

    def _announce(self) -> dict[str, Site]:
        config, last = self.config, self.config.num_layers - 1
        frame = crop_frame(self.image_size, config.resolution)
        found = [Site("styles", "styles", (self.num_styles, self.style_dim))]
        # Padding is counted as in the padding space paper: P0 is the constant, P<l + 1> belongs to layer l.
        found.append(Site("P0", "padding", (config.channels(4), 4, 4)))
        found += [Site(f"P{layer + 1}", "padding", self._ring_shape(layer)) for layer in range(config.num_layers)]
        has_skip = config.architecture == "skip"
        for layer in range(config.num_layers):
            side, channels = config.layer_resolution(layer), self._widths(layer)[1]
            even = layer + layer % 2
            arriving = f"rgb{even}" if has_skip and even > 0 else None
            found.append(Site(f"noise{layer}", "noise", (1, side, side), frame))
            found.append(Site(f"F{layer}", "feature", (channels, side, side), frame, arriving))
            if layer % 2 or layer == last:
                continue
            after = f"rgb{layer}.block" if has_skip else None
            found.append(Site(f"F{layer}.block", "feature", (channels, side, side), frame, after))
        if has_skip:
            image = config.image_channels
            for layer in self._rgb_layers():
                side = config.layer_resolution(layer)
                if layer > 0:
                    found.append(Site(f"rgb{layer}", "rgb", (image, side, side), frame))
                found.append(Site(f"rgb{layer}.block", "rgb", (image, side, side), frame))
        found.append(self._weight_site())
        return {site.name: site for site in found}

    def _ring_shape(self, layer: int) -> tuple[int, int]:
        """Channels and length of the ring of a layer: around its input, or around its up-sampled output."""
        inputs, outputs = self._widths(layer)
        side = self.config.layer_resolution(layer)
        return (outputs, ring_length(side + 1, side + 1)) if layer % 2 else (inputs, ring_length(side, side))

    def _noise(self, layer: int, batch: int, mode: str, taps: Taps) -> Tensor | None:
        name = f"noise{layer}"
        if mode == "none" and name not in taps:
            return None
        side = self.config.layer_resolution(layer)
        if mode == "random":
            noise = torch.randn(batch, 1, side, side, dtype=self.dtype, device=self.device)
        else:
            constant = self.layers[layer].noise_const
            assert isinstance(constant, Tensor)
            noise = constant[None, None]
        return taps.apply(name, noise)

    def synthesis(
        self,
        styles: Tensor,
        taps: Iterable[Tap] = (),
        *,
        noise: str = "const",
        truncation: float = 1.0,
        until: str | Sequence[str] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor | Features:
        """Render styles `[B, L, D]` (or w `[B, D]`) with taps. See :meth:`AbstractGenerator.synthesis`.

        Features are computed in ``dtype``, float16 or bfloat16 for speed; all that is returned has the type of the
        styles.
        """
        check_noise(noise)
        kind = styles.dtype if dtype is None else dtype

        def layers(styles: Tensor, taps: Taps, collect: Collector) -> Tensor | None:
            canvas = self._layers(styles, taps, noise, collect, kind)
            return None if canvas is None else crop_middle(canvas, self.image_size)

        return self._render(layers, styles, taps, noise, truncation, until)

    def _layers(self, styles: Tensor, taps: Taps, noise: str, collect: Collector, dtype: torch.dtype) -> Tensor | None:
        """Run the layers until the collector has what it wants; returns the RGB image of the whole canvas."""
        batch = styles.shape[0]
        x = self.const.to(dtype)[None].expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        x = taps.apply("P0", x)
        block_input, image = x, None
        if collect.see("P0", x):
            return image
        for layer in range(self.config.num_layers):
            maps = self._noise(layer, batch, noise, taps)
            if collect.see(f"noise{layer}", maps):
                return image
            block_input = x if layer % 2 else block_input
            ring = taps.ring(f"P{layer + 1}")
            x = self._convolve(layer, x, block_input, styles, maps, ring, taps)
            if collect.see(f"F{layer}", x):
                return image
            if str(layer) in self.torgb:
                image = self._add_rgb(layer, x, image, styles, taps, collect)
                if collect.see(f"rgb{layer}.block", image):
                    return image
            x = taps.apply(f"F{layer}.block", x)
            if collect.see(f"F{layer}.block", x):
                return image
        return image

    def _add_rgb(
        self, layer: int, x: Tensor, image: Tensor | None, styles: Tensor, taps: Taps, collect: Collector
    ) -> Tensor:
        """Skip image after the toRGB of a layer."""
        arriving = None
        if image is not None:
            arriving = taps.apply(f"rgb{layer}", upsample_rgb(image))
            collect.see(f"rgb{layer}", arriving)
        return taps.apply(f"rgb{layer}.block", self.torgb[str(layer)](x, styles[:, layer + 1], arriving))

    def _convolve(
        self,
        layer: int,
        x: Tensor,
        block_input: Tensor,
        styles: Tensor,
        noise: Tensor | None,
        ring: Tensor | None,
        taps: Taps,
    ) -> Tensor:
        """The feature of a layer, with its taps."""
        site, module, w = f"F{layer}", self.layers[layer], styles[:, layer]
        if str(layer) in self.skips:
            plain = self.skips[str(layer)](block_input) + module(x, w, noise, gain=math.sqrt(0.5), ring=ring)
            return taps.apply(site, plain)
        change = taps.sum_at(site)
        x = module(x, w, noise, ring=ring, change=change)
        return x if change is not None else taps.apply(site, x)

    def _surrounded(self, site: str, styles: Tensor) -> Tensor:
        if site == "P0":
            # Its channels are constants: each counts as much as all of them together.
            return self.const[None].transpose(0, 1).expand(-1, self.const.shape[0], -1, -1)
        layer = int(site[1:]) - 1
        before = "P0" if layer == 0 else f"F{layer - 1}"
        found = self.synthesis(styles, until=before)
        assert isinstance(found, dict)
        module = self.layers[layer]
        assert isinstance(module, ModulatedLayer)
        x = found[before] * module.affine(styles[:, layer])[:, :, None, None]
        return F.conv_transpose2d(x, module.weight.transpose(0, 1), stride=2) if layer % 2 else x

"""StyleGAN1 in plain torch.

Layers are counted from 0, the constant input: ``layers[l]`` writes the feature ``F<l>`` and reads style slot l. Each
resolution has two, so that F4 is 16x16 as on StyleGAN2; the even ones from 2 on double it. Padding ``P<l>`` belongs to
the convolution of layer l, and P0 is the constant. The toRGB reads no style.

Reference:
    Karras et al., 2019, arXiv 1812.04948.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import InputError
from .._types import Features
from ..ops.fir import blur
from ..ops.instance_padding import pad_ring, ring_length
from ..sites import Site, Tap, Taps
from ._base import FAMILIES, check_noise
from ._collect import Collector
from ._style_based import (
    SLOPE,
    AbstractStyleGAN,
    EqualLinear,
    Kept,
    check_pyramid,
    crop_frame,
    crop_middle,
    normalise,
)

BLUR = (1, 2, 1)
GAIN = math.sqrt(2)
"""Of the convolutions and of the mapping; leaky ReLU has none."""


@dataclass(frozen=True)
class Variant:
    """What the implementations of StyleGAN1 differ in.

    Attributes:
        gain: Of the layers that make styles, and of toRGB.
        style_centre: What the scale of a channel is measured from.
        epsilon: Added to the variance of a channel.
        bias_first: Up-sampling layers add their bias before the blur, which matters at the border.
        noise_gain: Square of the gain of noise weights, times the number of channels; None for no gain.
        shared_noise: Both layers of a resolution read the same random noise.
        truncation_cutoff: How many slots truncation changes by itself; all where None.
    """

    gain: float = 1.0
    style_centre: float = 1.0
    epsilon: float = 1e-8
    bias_first: bool = False
    noise_gain: float | None = None
    shared_noise: bool = False
    truncation_cutoff: int | None = 8


VARIANTS = {
    "nvidia": Variant(),
    "rosinality": Variant(GAIN, 0.0, 1e-5, True, noise_gain=2.0, shared_noise=True, truncation_cutoff=None),
}
"""NVIDIA's TensorFlow code and its ports, and rosinality's style-based-gan-pytorch, which is another network."""


@dataclass(frozen=True)
class StyleGAN1Config:
    """Everything that fixes the shape of a StyleGAN1.

    Attributes:
        resolution: Side of the square canvas, a power of two from 8 up.
        channel_base, channel_max: Channels at resolution r are ``min(channel_base // r, channel_max)``.
        channel_table: Channels at each resolution from 4 up, instead of these two.
        mapping_width: Width of the hidden mapping layers; ``w_dim`` where None.
        learning_rate_multiplier: Runtime gain of the mapping layers.
        fused_from: From this resolution on, up-sampling layers have kernels in the order of a transposed convolution.
        lod: Level of detail of a network whose training was not finished; 0 is the finished one. The layers of the last
            ``floor(lod)`` resolutions do not act yet. The rest is the share of the picture one resolution below.
        variant: A key of :data:`VARIANTS`.
        crop: (height, width) of the picture in the middle of the canvas; the whole canvas where None.
    """

    resolution: int = 1024
    z_dim: int = 512
    w_dim: int = 512
    label_dim: int = 0
    channel_base: int = 16384
    channel_max: int = 512
    channel_table: tuple[int, ...] | None = None
    mapping_layers: int = 8
    mapping_width: int | None = None
    learning_rate_multiplier: float = 0.01
    fused_from: int = 128
    lod: float = 0.0
    variant: str = "nvidia"
    image_channels: int = 3
    crop: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_pyramid(self.resolution, self.channel_table, self.crop)
        if self.variant not in VARIANTS:
            raise InputError(f"variant must be one of {', '.join(VARIANTS)}; got {self.variant!r}.")
        highest = int(math.log2(self.resolution)) - 2
        if not 0 <= self.lod <= highest:
            raise InputError(f"lod must lie in 0..{highest} at {self.resolution} pixels, got {self.lod}.")

    @property
    def num_layers(self) -> int:
        """Number of layers with a style, the constant's among them."""
        return 2 * int(math.log2(self.resolution)) - 2

    @property
    def acting_layers(self) -> int:
        """Number of layers that the level of detail leaves."""
        return self.num_layers - 2 * math.floor(self.lod)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the picture."""
        return (self.crop[0], self.crop[1]) if self.crop else (self.resolution, self.resolution)

    def layer_resolution(self, layer: int) -> int:
        """Output side of layer ``layer``."""
        return 4 << (layer // 2)

    def channels(self, layer: int) -> int:
        """Channels that a layer writes."""
        if self.channel_table is not None:
            return self.channel_table[layer // 2]
        return min(self.channel_base // self.layer_resolution(layer), self.channel_max)


class Mapping(nn.Module):
    """Noise `[B, z_dim]` and label `[B, label_dim]` to w `[B, w_dim]`."""

    def __init__(self, config: StyleGAN1Config) -> None:
        super().__init__()
        label, z, hidden = config.label_dim, config.z_dim, config.mapping_width or config.w_dim
        self.embed = nn.Parameter(torch.randn(label, z)) if label else None
        widths = [2 * z if label else z, *[hidden] * (config.mapping_layers - 1), config.w_dim]
        multiplier = config.learning_rate_multiplier
        self.layers = nn.ModuleList(
            EqualLinear(a, b, multiplier=multiplier, gain=GAIN) for a, b in itertools.pairwise(widths)
        )

    def forward(self, z: Tensor, label: Tensor | None) -> Tensor:
        x = normalise(z if self.embed is None or label is None else torch.cat([z, label @ self.embed], dim=1))
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
        return x


def _repeat(image: Tensor, times: int) -> Tensor:
    """Images `[B, C, H, W]` of ``times`` the size, each pixel repeated."""
    return image if times == 1 else F.interpolate(image, scale_factor=float(times))


def _scaled(weight: Tensor, flip: bool) -> Tensor:
    """A kernel `[O, I, 3, 3]` of unit scale as a convolution reads it."""
    weight = weight * (GAIN / math.sqrt(weight[0].numel()))
    return weight.flip((2, 3)) if flip else weight


def _doubling(weight: Tensor, flip: bool) -> Tensor:
    """The transposed kernel `[I, O, 4, 4]` of stride 2 that repeats pixels and convolves at once."""
    wide = F.pad(_scaled(weight, flip).flip((2, 3)), (1, 1, 1, 1))
    return (wide[..., 1:, 1:] + wide[..., 1:, :-1] + wide[..., :-1, 1:] + wide[..., :-1, :-1]).transpose(0, 1)


class StyledLayer(nn.Module):
    """Convolution, noise, bias, leaky ReLU, normalisation of each channel, style: one feature ``F<l>``."""

    def __init__(self, config: StyleGAN1Config, layer: int) -> None:
        super().__init__()
        outputs, side = config.channels(layer), config.layer_resolution(layer)
        self.variant, self.up = VARIANTS[config.variant], layer % 2 == 0
        self.style = EqualLinear(config.w_dim, 2 * outputs, gain=self.variant.gain)
        self.weight = nn.Parameter(torch.randn(outputs, config.channels(layer - 1), 3, 3)) if layer else None
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_weight = nn.Parameter(torch.zeros(outputs))
        self.noise_const: Tensor
        self.register_buffer("noise_const", torch.randn(side, side))
        fused = self.up and side >= config.fused_from
        self._kernel = Kept(functools.partial(_scaled, flip=fused))
        self._doubling = Kept(functools.partial(_doubling, flip=fused))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None, ring: Tensor | None = None) -> Tensor:
        if self.weight is not None:
            x = self._convolve(x, self.weight, ring)
        bias = self.bias[:, None, None]
        x = x + bias if self.variant.bias_first else x
        if self.weight is not None and self.up:
            x = blur(x, BLUR, gain=1.0, padding=(1, 1))
        x = x if noise is None else x + noise * self._noise_weight()
        x = x if self.variant.bias_first else x + bias
        x = F.instance_norm(F.leaky_relu(x, SLOPE), eps=self.variant.epsilon)
        scale, shift = self.style(w)[:, :, None, None].chunk(2, dim=1)
        return x * (scale + self.variant.style_centre) + shift

    def _convolve(self, x: Tensor, weight: Tensor, ring: Tensor | None) -> Tensor:
        if ring is None and self.up:
            return F.conv_transpose2d(x, self._doubling(weight), stride=2, padding=1)
        if ring is None:
            return F.conv2d(x, self._kernel(weight), padding=1)
        return F.conv2d(pad_ring(_repeat(x, 2) if self.up else x, ring), self._kernel(weight))

    def _noise_weight(self) -> Tensor:
        gain = self.variant.noise_gain
        scale = 1.0 if gain is None else math.sqrt(gain / len(self.noise_weight))
        return self.noise_weight[:, None, None] * scale


class ToRGB(nn.Module):
    """1x1 convolution without style."""

    def __init__(self, config: StyleGAN1Config, layer: int) -> None:
        super().__init__()
        inputs = config.channels(layer)
        self.weight = nn.Parameter(torch.randn(config.image_channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(config.image_channels))
        self.gain = VARIANTS[config.variant].gain / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.gain, self.bias)


@FAMILIES.register("stylegan1")
class StyleGAN1(AbstractStyleGAN):
    """StyleGAN1 generator.

    Raises:
        InputError: From the configuration, or for labels, noise modes and sites that it does not have.
    """

    family = "stylegan1"
    configuration = StyleGAN1Config

    def __init__(self, config: StyleGAN1Config) -> None:
        super().__init__()
        self.config = config
        self.image_size, self.z_dim, self.label_dim = config.image_size, config.z_dim, config.label_dim
        self.num_styles, self.style_dim = config.num_layers, config.w_dim
        self.truncation_cutoff = VARIANTS[config.variant].truncation_cutoff
        self.const = nn.Parameter(torch.ones(config.channels(0), 4, 4))
        self.mapping_network = Mapping(config)
        self.register_buffer("w_avg", torch.zeros(config.w_dim))
        acting = config.acting_layers
        self.layers = nn.ModuleList(StyledLayer(config, layer) for layer in range(acting))
        rgb = [acting - 1] if config.lod % 1 == 0 else [acting - 3, acting - 1]
        self.torgb = nn.ModuleDict({str(layer): ToRGB(config, layer) for layer in rgb})
        self.sites = self._announce()
        # The last layer of each resolution from 16 to 128 as in the SAM report, but not that of the picture.
        self.default_spaces = ("W+", *[f"F{layer}" for layer in range(5, min(acting - 2, 12), 2)])

    def _announce(self) -> dict[str, Site]:
        config, last = self.config, self.config.acting_layers - 1
        frame = crop_frame(self.image_size, config.resolution)
        found = [Site("styles", "styles", (self.num_styles, self.style_dim))]
        found.append(Site("P0", "padding", (config.channels(0), 4, 4)))
        for layer in range(1, last + 1):
            side = config.layer_resolution(layer)
            found.append(Site(f"P{layer}", "padding", (config.channels(layer - 1), ring_length(side, side))))
        for layer in range(last + 1):
            side = config.layer_resolution(layer)
            found.append(Site(f"noise{layer}", "noise", (1, side, side), frame))
            found.append(Site(f"F{layer}", "feature", (config.channels(layer), side, side), frame))
        found.append(self._weight_site())
        return {site.name: site for site in found}

    def synthesis(
        self,
        styles: Tensor,
        taps: Iterable[Tap] = (),
        *,
        noise: str = "const",
        truncation: float = 1.0,
        until: str | Sequence[str] | None = None,
    ) -> Tensor | Features:
        """Render styles `[B, L, D]` (or w `[B, D]`) with taps. See :meth:`AbstractGenerator.synthesis`."""
        check_noise(noise)
        layers = functools.partial(self._layers, noise=noise)
        return self._render(layers, styles, taps, noise, truncation, until)

    def _layers(self, styles: Tensor, taps: Taps, collect: Collector, noise: str) -> Tensor | None:
        """Run the layers until the collector has what it wants; returns the picture."""
        x, image, source = self.const[None].expand(len(styles), -1, -1, -1), None, None
        x = taps.apply("P0", x)
        if collect.see("P0", x):
            return None
        for layer, module in enumerate(self.layers):
            name = f"noise{layer}"
            source = self._noise(layer, len(x), noise, source)
            maps = None if noise == "none" and name not in taps else taps.apply(name, source)
            if collect.see(name, maps):
                return None
            x = module(x, styles[:, layer], maps, taps.ring(f"P{layer}") if layer else None)
            x = taps.apply(f"F{layer}", x)
            if collect.see(f"F{layer}", x):
                return None
            if str(layer) in self.torgb:
                image = self._blend(image, self.torgb[str(layer)](x))
        assert image is not None
        return crop_middle(_repeat(image, self.config.resolution // image.shape[-1]), self.image_size)

    def _noise(self, layer: int, batch: int, mode: str, before: Tensor | None) -> Tensor:
        """Noise of a layer without its taps; ``before`` is that of the layer before it."""
        if mode != "random":
            constant = self.layers[layer].noise_const
            assert isinstance(constant, Tensor)
            return constant[None, None]
        if before is not None and layer % 2 and VARIANTS[self.config.variant].shared_noise:
            return before
        side = self.config.layer_resolution(layer)
        return torch.randn(batch, 1, side, side, dtype=self.dtype, device=self.device)

    def _blend(self, below: Tensor | None, image: Tensor) -> Tensor:
        """The picture of a network under training, between two resolutions; ``below`` is None in a finished one."""
        return image if below is None else image.lerp(_repeat(below, 2), self.config.lod % 1)

    def _surrounded(self, site: str, styles: Tensor) -> Tensor:
        if site == "P0":
            # Its channels are constants: each counts as much as all of them together.
            return self.const[None].transpose(0, 1).expand(-1, len(self.const), -1, -1)
        # Pixels that are repeated deviate as they did before.
        before = f"F{int(site[1:]) - 1}"
        found = self.synthesis(styles, until=before)
        assert isinstance(found, dict)
        return found[before]

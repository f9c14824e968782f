"""StyleGAN3 in plain torch, configurations T (translation) and R (rotation).

``layers[l]`` writes the feature ``F<l>`` and reads style slot l + 1; slot 0 places the Fourier features from which all
begins, and the last slot belongs to the toRGB. Grids of features become finer from layer to layer, and reach beyond the
picture by a margin, which the ``frame`` of a site leaves out. There is no noise and no padding.

Reference:
    Karras et al., 2021, arXiv 2106.12423.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._errors import InputError
from .._types import Features
from ..ops.filtered_lrelu import design_lowpass_filter, filtered_lrelu
from ..ops.modulated_conv_sg3 import modulated_conv_sg3
from ..sites import Site, Tap, Taps
from ._base import FAMILIES, check_noise
from ._collect import Collector
from ._style_based import SLOPE, AbstractStyleGAN, EqualLinear, MappingNetwork

MOST = 64
"""Of samples and taps that a configuration may ask for."""


@dataclass(frozen=True)
class StyleGAN3Config:
    """Everything that fixes the shape of a StyleGAN3. The defaults are those of configuration T.

    Frequencies are in cycles per picture, rates in samples per picture.

    Attributes:
        resolution: Side of the picture, a power of two from 16 up.
        channel_base, channel_max: Channels of a layer are ``min(channel_base / 2 / cutoff, channel_max)``, rounded.
        channel_table: Channels of each layer instead of these two.
        num_layers: Number of layers before the toRGB.
        num_critical: How many of the last layers have the cutoff of the picture.
        first_cutoff, first_stopband: Where the band of the input ends, and where its filters have ended.
        last_stopband_rel: The last stopband, relative to its cutoff.
        margin: Samples by which a grid reaches beyond the picture on each side.
        output_scale: Factor on the picture.
        kernel: Side of the convolution kernels; 3 in T, 1 in R.
        filter_size: Taps of a low-pass filter, per sample of the lower rate.
        lrelu_upsampling: How many times finer the grid is on which a leaky ReLU acts.
        radial: Down-sampling filters are the same in all directions, as in R; those of critical layers never are.
        mapping_layers: Number of layers of the mapping.
        learning_rate_multiplier: Runtime gain of the mapping layers.
        clamp: Bound on activations, None without.
    """

    resolution: int = 256
    z_dim: int = 512
    w_dim: int = 512
    label_dim: int = 0
    channel_base: int = 32768
    channel_max: int = 512
    channel_table: tuple[int, ...] | None = None
    num_layers: int = 14
    num_critical: int = 2
    first_cutoff: float = 2.0
    first_stopband: float = 2**2.1
    last_stopband_rel: float = 2**0.3
    margin: int = 10
    output_scale: float = 0.25
    kernel: int = 3
    filter_size: int = 6
    lrelu_upsampling: int = 2
    radial: bool = False
    mapping_layers: int = 2
    learning_rate_multiplier: float = 0.01
    clamp: float | None = 256.0
    image_channels: int = 3

    def __post_init__(self) -> None:
        if self.resolution < 16 or self.resolution & (self.resolution - 1):
            raise InputError(f"resolution must be a power of two from 16 up, got {self.resolution}.")
        if not 0 <= self.margin <= MOST or not all(0 < n <= MOST for n in (self.filter_size, self.lrelu_upsampling)):
            raise InputError(
                f"margin, filter_size and lrelu_upsampling must be small numbers up to {MOST}, got {self.margin}, "
                f"{self.filter_size} and {self.lrelu_upsampling}."
            )
        if not 0 < self.num_critical < self.num_layers:
            raise InputError(
                f"num_critical must lie in 1..num_layers - 1, got {self.num_critical} of {self.num_layers} layers."
            )
        if self.channel_table is not None and not (
            len(self.channel_table) == self.num_layers and min(self.channel_table) > 0
        ):
            raise InputError(
                f"channel_table needs a number from 1 up for each of the {self.num_layers} layers, got "
                f"{self.channel_table}."
            )
        if not 0 < self.first_cutoff < min(self.first_stopband, self.resolution / 2) or self.last_stopband_rel <= 1:
            raise InputError(
                f"Stopbands must lie above cutoffs, and the first cutoff below {self.resolution / 2:g}; got "
                f"first_cutoff={self.first_cutoff}, first_stopband={self.first_stopband} and "
                f"last_stopband_rel={self.last_stopband_rel}."
            )

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the picture."""
        return self.resolution, self.resolution

    def band(self, layer: int) -> Band:
        """What the output of a layer holds; the toRGB counts as the last layer."""
        exponent = min(layer / (self.num_layers - self.num_critical), 1.0)
        last = self.resolution / 2
        cutoff = self.first_cutoff * (last / self.first_cutoff) ** exponent
        stop = self.first_stopband * (last * self.last_stopband_rel / self.first_stopband) ** exponent
        rate = 2 ** math.ceil(math.log2(min(2 * stop, self.resolution)))
        margin = self.margin if layer < self.num_layers - 1 else 0
        return Band(cutoff, max(stop, rate / 2) - cutoff, rate, margin)

    def channels(self, layer: int) -> int:
        """Channels of a layer's output; the input has those of the first layer."""
        if layer == self.num_layers:
            return self.image_channels
        if self.channel_table is not None:
            return self.channel_table[layer]
        return round(min(self.channel_base / 2 / self.band(layer).cutoff, self.channel_max))


@dataclass(frozen=True)
class Band:
    """Frequencies and grid of a feature.

    Attributes:
        cutoff: Where filters have half their amplitude.
        half_width: From there to where they end.
        rate: Samples per picture, along a side.
        margin: Samples beyond the picture, on each side.
    """

    cutoff: float
    half_width: float
    rate: int
    margin: int

    @property
    def size(self) -> int:
        """Side of the grid."""
        return self.rate + 2 * self.margin


class FourierInput(nn.Module):
    """Waves of fixed frequencies, which the first style turns and shifts: the input of the first layer.

    ``transform`` `[3, 3]` is applied to positions before that, so it moves the picture the other way.
    """

    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        channels, self.band = config.channels(0), config.band(0)
        self.affine = EqualLinear(config.w_dim, 4)
        self.weight = nn.Parameter(torch.randn(channels, channels))
        with torch.no_grad():
            self.affine.weight.zero_()
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        freqs = torch.randn(channels, 2)
        radii = freqs.square().sum(dim=1, keepdim=True).sqrt()
        # Nearly uniform on the disc of the band.
        self.register_buffer("freqs", freqs / (radii * radii.square().exp() ** 0.25) * self.band.cutoff)
        self.register_buffer("phases", torch.rand(channels) - 0.5)
        self.register_buffer("transform", torch.eye(3))

    def forward(self, w: Tensor) -> Tensor:
        placed = self._placement(w) @ self.transform
        freqs = self.freqs @ placed[:, :2, :2]
        phases = self.phases + (self.freqs @ placed[:, :2, 2:])[..., 0]
        # Frequencies that the grid cannot hold are faded out.
        room = self.band.rate / 2 - self.band.cutoff
        amplitudes = (1 - (freqs.norm(dim=2) - self.band.cutoff) / room).clamp(0, 1)
        waves = torch.sin(2 * math.pi * (self._positions() @ freqs.mT[:, None] + phases[:, None, None]))
        mixed = (waves * amplitudes[:, None, None]) @ (self.weight.t() / math.sqrt(len(self.weight)))
        return mixed.permute(0, 3, 1, 2)

    def _placement(self, w: Tensor) -> Tensor:
        """The rotation and translation that a style asks for, `[B, 3, 3]`."""
        found = self.affine(w)
        cosine, sine, x, y = (found / found[:, :2].norm(dim=1, keepdim=True)).unbind(dim=1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        turn = torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], dim=1)
        shift = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], dim=1)
        return turn.reshape(-1, 3, 3) @ shift.reshape(-1, 3, 3)

    def _positions(self) -> Tensor:
        """Sample positions (x, y) `[h, w, 2]` from the middle of the picture, whose side is 1."""
        size = self.band.size
        steps = torch.arange(size, dtype=self.freqs.dtype, device=self.freqs.device)
        steps = (steps + 0.5 - size / 2) / self.band.rate
        return torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=2)


class FilteredLayer(nn.Module):
    """Modulated convolution, bias, leaky ReLU between filters: one feature ``F<l>``."""

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(self, config: StyleGAN3Config, layer: int) -> None:
        super().__init__()
        before, after = config.band(max(layer - 1, 0)), config.band(layer)
        inputs, outputs = config.channels(max(layer - 1, 0)), config.channels(layer)
        self.clamp, self.kernel = config.clamp, config.kernel
        self.affine = EqualLinear(config.w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, self.kernel, self.kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("magnitude_ema", torch.ones(()))
        rate = max(before.rate, after.rate) * config.lrelu_upsampling
        self.up, self.down = rate // before.rate, rate // after.rate
        taps = [config.filter_size * factor if factor > 1 else 1 for factor in (self.up, self.down)]
        radial = config.radial and layer < config.num_layers - config.num_critical
        up = design_lowpass_filter(taps[0], before.cutoff, 2 * before.half_width, rate)
        down = design_lowpass_filter(taps[1], after.cutoff, 2 * after.half_width, rate, radial=radial)
        self.register_buffer("up_filter", up)
        self.register_buffer("down_filter", down)
        # What convolution and filters leave has the size of the grid; the odd sample is cut off at the end.
        wanted = (after.size - 1) * self.down + 1
        missing = wanted - (before.size + self.kernel - 1) * self.up + sum(taps) - 2
        first = (missing + self.up) // 2
        self.padding = (first, missing - first) * 2

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        gain = self.magnitude_ema.rsqrt()
        x = modulated_conv_sg3(x, self.weight, self.affine(w), padding=self.kernel - 1, input_gain=gain)
        return filtered_lrelu(
            x,
            self.up_filter,
            self.down_filter,
            self.bias,
            up=self.up,
            down=self.down,
            padding=self.padding,
            slope=SLOPE,
            clamp=self.clamp,
        )


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation; the styles carry the weight's scale."""

    magnitude_ema: Tensor

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        inputs = config.channels(config.num_layers - 1)
        self.clamp, self.gain = config.clamp, 1 / math.sqrt(inputs)
        self.affine = EqualLinear(config.w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(config.image_channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(config.image_channels))
        self.register_buffer("magnitude_ema", torch.ones(()))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles, gain = self.affine(w) * self.gain, self.magnitude_ema.rsqrt()
        x = modulated_conv_sg3(x, self.weight, styles, demodulate=False, input_gain=gain)
        x = x + self.bias[:, None, None]
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


@FAMILIES.register("stylegan3")
class StyleGAN3(AbstractStyleGAN):
    """StyleGAN3 generator.

    Raises:
        InputError: From the configuration, or for labels, noise modes and sites that it does not have.
    """

    family = "stylegan3"
    configuration = StyleGAN3Config

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        self.config = config
        self.image_size, self.z_dim, self.label_dim = config.image_size, config.z_dim, config.label_dim
        self.num_styles, self.style_dim = config.num_layers + 2, config.w_dim
        self.mapping_network = MappingNetwork(
            config.z_dim,
            config.w_dim,
            config.label_dim,
            depth=config.mapping_layers,
            multiplier=config.learning_rate_multiplier,
        )
        self.register_buffer("w_avg", torch.zeros(config.w_dim))
        self.input = FourierInput(config)
        self.layers = nn.ModuleList(FilteredLayer(config, layer) for layer in range(config.num_layers))
        self.torgb = ToRGB(config)
        self.sites = self._announce()
        # F4 to F10 of the SAM report have 16 to 128 samples per picture. So have these, each the last of its rate;
        # which layers that are depends on the resolution.
        last = {config.band(layer).rate: layer for layer in range(config.num_layers)}
        spaces = [f"F{last[rate]}" for rate in (16, 32, 64, 128) if rate in last and rate < config.resolution]
        self.default_spaces = ("W+", *spaces)

    def _announce(self) -> dict[str, Site]:
        config = self.config
        found = [Site("styles", "styles", (self.num_styles, self.style_dim))]
        for layer in range(config.num_layers):
            band = config.band(layer)
            inset = band.margin / band.size
            shape = (config.channels(layer), band.size, band.size)
            frame = (inset, inset, 1 - inset, 1 - inset)
            # Later layers read the margin too.
            found.append(Site(f"F{layer}", "feature", shape, frame, beyond="edge"))
        found.append(self._weight_site())
        return {site.name: site for site in found}

    def set_transform(self, matrix: Tensor | None = None) -> None:
        """Move what the generator draws; what lay beyond the border comes into view.

        Args:
            matrix: `[3, 3]`, acts on positions (x, y, 1) from the middle of the picture, whose side is 1; x points to
                the right and y down. ``[[c, -s, x], [s, c, y], [0, 0, 1]]`` turns clockwise and then shifts. None is
                the identity.

        Raises:
            InputError: If it is no invertible `[3, 3]` matrix whose last row is (0, 0, 1).
        """
        given = torch.eye(3, dtype=torch.float64) if matrix is None else torch.as_tensor(matrix).double()
        if given.shape != (3, 3) or given[2].tolist() != [0, 0, 1] or not given.det().abs() > 1e-6:
            raise InputError(
                f"A transform must be an invertible [3, 3] matrix with (0, 0, 1) below, got {given.tolist()}."
            )
        self.input.transform.copy_(given.inverse())
        self._fingerprint = None
        self._feature_deviation.clear()

    @torch.no_grad()
    def track_magnitudes(self, styles: Tensor, decay: float = 0.999) -> None:
        """Move each layer's average of the mean square of its input towards that of styles `[B, L, D]`, in training."""
        x = self.input(styles[:, 0])
        for slot, module in enumerate([*self.layers, self.torgb], start=1):
            module.magnitude_ema.copy_(x.square().mean().lerp(module.magnitude_ema, decay))
            x = module(x, styles[:, slot])

    def synthesis(
        self,
        styles: Tensor,
        taps: Iterable[Tap] = (),
        *,
        noise: str = "const",
        truncation: float = 1.0,
        until: str | Sequence[str] | None = None,
    ) -> Tensor | Features:
        """Render styles `[B, L, D]` (or w `[B, D]`) with taps. See :meth:`AbstractGenerator.synthesis`.

        There is no noise, so all noise modes are alike.
        """
        check_noise(noise)
        return self._render(self._layers, styles, taps, noise, truncation, until)

    def _layers(self, styles: Tensor, taps: Taps, collect: Collector) -> Tensor | None:
        """Run the layers until the collector has what it wants; returns the picture."""
        x = self.input(styles[:, 0])
        for layer, module in enumerate(self.layers):
            x = module(x, styles[:, layer + 1])
            x = taps.apply(f"F{layer}", x)
            if collect.see(f"F{layer}", x):
                return None
        image: Tensor = self.torgb(x, styles[:, -1]) * self.config.output_scale
        return image

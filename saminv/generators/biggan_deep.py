"""BigGAN-deep in plain torch, with its spectral norms resolved.

Blocks are counted from 0 at 4x4 and self-attention is not counted: ``blocks[l]`` writes the feature ``F<l>`` and reads
style slot l + 1. Slot 0 makes the first feature map.

Reference:
    Brock et al., 2019, arXiv 1809.11096, appendix B (the deep variant).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import InputError
from .._types import Features
from ..sites import Site, Tap, Taps
from ._base import FAMILIES, WEIGHTS, AbstractGenerator, LatentStatistics, check_noise
from ._collect import Collector

Block = tuple[bool, int, int]

_DEEP: tuple[Block, ...] = (
    (False, 16, 16),
    (True, 16, 16),
    (False, 16, 16),
    (True, 16, 8),
    (False, 8, 8),
    (True, 8, 8),
    (False, 8, 8),
    (True, 8, 4),
    (False, 4, 4),
    (True, 4, 2),
    (False, 2, 2),
    (True, 2, 1),
    (False, 1, 1),
    (True, 1, 1),
)
BLOCKS: dict[int, tuple[Block, ...]] = {
    128: (*_DEEP[:5], (True, 8, 4), *_DEEP[8:12]),
    256: _DEEP[:12],
    512: _DEEP,
}
"""Blocks of the published networks, by resolution."""
ATTENTION = 8
"""Number of the block before which attention acts in all of them: at 64x64."""
BOTTLENECK = 4
"""Channels of a block over those of its 3x3 convolutions."""
DECIMALS = 6
"""To which truncations are known, as styles hold them in float32: a row of the statistics begins at its very number."""


@dataclass(frozen=True)
class BigGANDeepConfig:
    """Everything that fixes the shape of a BigGAN-deep.

    Attributes:
        z_dim: Length of the noise that a block reads.
        embed_dim: Length of the class embedding.
        label_dim: Number of classes.
        width: Channels are multiples of it.
        blocks: Whether a block doubles the resolution, and its inputs and outputs in multiples of ``width``.
        attention: Number of the block before which self-attention acts, None without.
        num_statistics: Rows of the tables of batch-norm statistics, for truncations spaced evenly from 0 to 1.
        eps: Added to variances.
    """

    z_dim: int = 128
    embed_dim: int = 128
    label_dim: int = 1000
    width: int = 128
    blocks: tuple[Block, ...] = BLOCKS[128]
    attention: int | None = ATTENTION
    num_statistics: int = 51
    eps: float = 1e-4

    def __post_init__(self) -> None:
        if min(self.z_dim, self.embed_dim, self.label_dim, self.width) < 1 or self.num_statistics < 2:
            raise InputError("z_dim, embed_dim, label_dim and width must be from 1 up, num_statistics from 2 up.")
        if not self.blocks or any(a[2] != b[1] for a, b in itertools.pairwise(self.blocks)):
            raise InputError(f"blocks must be one or more, each with the outputs of the one before; got {self.blocks}.")
        for _, inputs, outputs in self.blocks:
            # The skip path has no weights: it keeps all channels, or the first half of them.
            if inputs < 1 or outputs not in (inputs, inputs / 2) or inputs * self.width < BOTTLENECK:
                raise InputError(
                    f"A block has as many outputs as inputs or half as many, and {BOTTLENECK} channels or more; got "
                    f"{inputs} to {outputs} times {self.width}."
                )
        if self.attention is not None and not (
            0 <= self.attention < len(self.blocks) and self.blocks[self.attention][1] * self.width >= 8
        ):
            raise InputError(
                f"attention must be the number of one of {len(self.blocks)} blocks, with 8 channels or more; got "
                f"{self.attention}."
            )

    @property
    def resolution(self) -> int:
        """Side of the picture in pixels."""
        return 4 << sum(up for up, _, _ in self.blocks)

    @property
    def condition_dim(self) -> int:
        """Length of what a block is conditioned by, noise and class embedding."""
        return self.z_dim + self.embed_dim


@dataclass(frozen=True)
class Rows:
    """Where truncations lie in the tables of statistics.

    Attributes:
        first, second: Numbers of two rows `[B, L]`.
        weight: Of the first one, in [0, 1] `[B, L]`.
    """

    first: Tensor
    second: Tensor
    weight: Tensor

    @classmethod
    def of(cls, truncation: Tensor, count: int) -> Rows:
        """Rows for truncations `[B, L]` in [0, 1], of ``count``.

        Between two rows the published network takes the share of the first one that would be the second one's. So does
        this, since its weights were used in that way.
        """
        place = torch.round(truncation.double(), decimals=DECIMALS) / (1.0 / (count - 1))
        first, share = place.floor(), place.frac()
        weight = torch.where(share == 0, 1.0, share).to(truncation.dtype)
        return cls(first.long(), (first + 1).clamp_max(count - 1).long(), weight)

    def slot(self, number: int) -> Rows:
        """Those of one style slot, `[B]` and `[B, 1]`."""
        return Rows(self.first[:, number], self.second[:, number], self.weight[:, number, None])

    def of_table(self, table: Tensor) -> Tensor:
        """What a table `[R, C]` says for one slot, `[B, C]`."""
        return table[self.first] * self.weight + table[self.second] * (1 - self.weight)


class Norm(nn.Module):
    """Batch norm by statistics of a truncation, then ReLU; with scale and offset of its own."""

    means: Tensor
    variances: Tensor

    def __init__(self, channels: int, config: BigGANDeepConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.register_buffer("means", torch.zeros(config.num_statistics, channels))
        self.register_buffer("variances", torch.ones(config.num_statistics, channels))
        self._add_parameters(channels, config)

    def _add_parameters(self, channels: int, config: BigGANDeepConfig) -> None:
        self.scale = nn.Parameter(torch.ones(channels))
        self.offset = nn.Parameter(torch.zeros(channels))

    def _affine(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and offset of each channel, `[C]` or `[B, C]`."""
        return self.scale, self.offset

    def moments(self, x: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """Mean and variance `[B, C]` by which `[B, C, h, w]` is normalised: those of the truncation."""
        return rows.of_table(self.means), rows.of_table(self.variances)

    def normalised(self, x: Tensor, condition: Tensor, rows: Rows) -> Tensor:
        """Before the ReLU."""
        scale, offset = self._affine(condition)
        mean, variance = self.moments(x, rows)
        scale = scale * torch.rsqrt(variance + self.eps)
        offset = offset - scale * mean
        return torch.addcmul(offset[:, :, None, None], x, scale[:, :, None, None])

    def forward(self, x: Tensor, condition: Tensor, rows: Rows) -> Tensor:
        return F.relu(self.normalised(x, condition, rows))


class ConditionalNorm(Norm):
    """Batch norm whose scale (less 1) and offset are linear in the noise and the class embedding."""

    def _add_parameters(self, channels: int, config: BigGANDeepConfig) -> None:
        self.condition = nn.Linear(config.condition_dim, 2 * channels, bias=False)

    def _affine(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        scale, offset = self.condition(condition).chunk(2, dim=1)
        return 1 + scale, offset


class DeepBlock(nn.Module):
    """Residual block with a bottleneck, 1x1, 3x3, 3x3, 1x1: one feature ``F<l>``."""

    def __init__(self, up: bool, inputs: int, outputs: int, config: BigGANDeepConfig) -> None:
        super().__init__()
        middle = inputs // BOTTLENECK
        self.up, self.kept = up, outputs
        self.norms = nn.ModuleList(ConditionalNorm(c, config) for c in (inputs, middle, middle, middle))
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, side, padding=side // 2)
            for a, b, side in ((inputs, middle, 1), (middle, middle, 3), (middle, middle, 3), (middle, outputs, 1))
        )

    def forward(self, x: Tensor, condition: Tensor, rows: Rows) -> Tensor:
        skip = x[:, : self.kept]
        for number, (norm, conv) in enumerate(zip(self.norms, self.convs)):
            x = norm(x, condition, rows)
            x = conv(_doubled(x) if self.up and number == 1 else x)
        return x + (_doubled(skip) if self.up else skip)


class SelfAttention(nn.Module):
    """Each position adds what it finds at others, on a grid of half the resolution.

    Reference: Zhang et al., 2019, arXiv 1805.08318.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.key = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.value = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.output = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.query(x), F.max_pool2d(self.key(x), 2), F.max_pool2d(self.value(x), 2)
        queries, keys, values = (_as_rows(part) for part in (queries, keys, values))
        found = F.scaled_dot_product_attention(queries, keys, values, scale=1.0)
        batch, _, height, width = x.shape
        return x + self.gain * self.output(found.transpose(1, 2).reshape(batch, -1, height, width))


def _doubled(x: Tensor) -> Tensor:
    """Each pixel of `[B, C, h, w]` four times."""
    return F.interpolate(x, scale_factor=2)


def _as_rows(x: Tensor) -> Tensor:
    """`[B, C, h, w]` as `[B, h w, C]`."""
    return x.flatten(2).transpose(1, 2)


@FAMILIES.register("biggan_deep")
class BigGANDeep(AbstractGenerator):
    """BigGAN-deep generator.

    Its styles are what each block is conditioned by: noise, class embedding and, last, truncation. So a picture is a
    function of its styles alone, and there is no mapping network. The sites "z" and "class" are the first two parts of
    the site "styles", and act after it.

    Raises:
        InputError: From the configuration, or for labels, noise modes, truncations and sites that it does not have.
    """

    family = "biggan_deep"
    configuration = BigGANDeepConfig
    style_base = "Z+"
    mapping_names = ("embedding.",)

    def __init__(self, config: BigGANDeepConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size = (config.resolution, config.resolution)
        self.z_dim, self.embed_dim, self.label_dim = config.z_dim, config.embed_dim, config.label_dim
        self.num_styles, self.style_dim = len(config.blocks) + 1, config.condition_dim + 1
        self.embedding = nn.Linear(config.label_dim, config.embed_dim, bias=False)
        self.first_channels = config.blocks[0][1] * config.width
        self.first = nn.Linear(config.condition_dim, 16 * self.first_channels)
        self.blocks = nn.ModuleList(
            DeepBlock(up, inputs * config.width, outputs * config.width, config)
            for up, inputs, outputs in config.blocks
        )
        place, last = config.attention, config.blocks[-1][2] * config.width
        self.attention = None if place is None else SelfAttention(config.blocks[place][1] * config.width)
        self.norm = Norm(last, config)
        self.torgb = nn.Conv2d(last, 3, 3, padding=1)
        self.sites = self._announce()
        # The pair of the SAM report.
        self.default_spaces = ("Z+", f"F{min(2, len(config.blocks) - 1)}")
        self.to(memory_format=torch.channels_last)

    def _announce(self) -> dict[str, Site]:
        config, slots, side = self.config, self.num_styles, 4
        found = [Site("styles", "styles", (slots, self.style_dim))]
        found += [Site("z", "latent", (slots, config.z_dim)), Site("class", "class", (slots, config.embed_dim))]
        for layer, (up, _, outputs) in enumerate(config.blocks):
            side *= 2 if up else 1
            found.append(Site(f"F{layer}", "feature", (outputs * config.width, side, side)))
        found.append(self._weight_site())
        return {site.name: site for site in found}

    def mapping(self, z: Tensor, label: Tensor | int | None = None, truncation: float = 1.0) -> Tensor:
        """Put noise, class embedding and truncation together to styles `[B, L, D]`.

        Args:
            z: `[B, z_dim]`, or noise of each block `[B, L, z_dim]`. It is taken as it is: the published samples for a
                truncation are noise within two standard deviations, multiplied by it.
            label: Class number, vector or batch of vectors; entries between 0 and 1 mix classes.
            truncation: Of the batch-norm statistics, from 0 to 1.
        """
        if z.dim() not in (2, 3) or z.shape[-1] != self.z_dim or z.shape[1:-1] not in ((), (self.num_styles,)):
            raise InputError(
                f"z must have shape [B, {self.z_dim}] or [B, {self.num_styles}, {self.z_dim}], got {list(z.shape)}."
            )
        z = z if z.dim() == 3 else z[:, None].expand(-1, self.num_styles, -1)
        embedded = self.embedding(self.label_tensor(label, len(z)))[:, None].expand(-1, self.num_styles, -1)
        return torch.cat([z, embedded, torch.full_like(z[..., :1], _checked(truncation))], dim=2)

    def synthesis(
        self,
        styles: Tensor,
        taps: Iterable[Tap] = (),
        *,
        noise: str = "const",
        truncation: float = 1.0,
        until: str | Sequence[str] | None = None,
    ) -> Tensor | Features:
        """Render styles `[B, L, D]` (or `[B, D]`, the same for all blocks) with taps.

        See :meth:`AbstractGenerator.synthesis`. There are no noise maps, so ``noise`` changes nothing. The truncation
        of a block is the smaller one of ``truncation`` and what its style says.
        """
        check_noise(noise)
        acts = taps if isinstance(taps, Taps) else Taps(taps, self.sites)
        if WEIGHTS in acts:
            render = functools.partial(self.synthesis, noise=noise, truncation=truncation, until=until)
            return self._by_own_weights(render, styles, acts)  # type: ignore[arg-type]
        collect = Collector(until, self.sites, styles.dtype)
        parts = self._parts(styles, acts)
        done = [collect.see(name, part) for name, part in zip(("z", "class"), parts)]
        done.append(collect.see("styles", torch.cat(parts, dim=2)))
        image = None if any(done) else self._blocks(parts, acts, _checked(truncation), collect)
        return collect.result(image, noise)

    def _parts(self, styles: Tensor, taps: Taps) -> tuple[Tensor, Tensor, Tensor]:
        """Noise, class embedding and truncation of each slot, `[B, L, ...]`."""
        styles = taps.apply("styles", styles[:, None].expand(-1, self.num_styles, -1) if styles.dim() == 2 else styles)
        if styles.dim() != 3 or tuple(styles.shape[1:]) != (self.num_styles, self.style_dim):
            raise InputError(
                f"styles must have shape [B, {self.num_styles}, {self.style_dim}], got {list(styles.shape)}."
            )
        z, embedded, truncation = styles.split([self.z_dim, self.embed_dim, 1], dim=2)
        return taps.apply("z", z), taps.apply("class", embedded), truncation

    def _blocks(
        self, parts: tuple[Tensor, Tensor, Tensor], taps: Taps, truncation: float, collect: Collector
    ) -> Tensor | None:
        """Run the blocks until the collector has what it wants; returns the picture."""
        z, embedded, own = parts
        condition = torch.cat([z, embedded], dim=2)
        rows = Rows.of(own[..., 0].clamp(0, truncation), self.config.num_statistics)
        x = self.first_map(condition[:, 0])
        for layer, block in enumerate(self.blocks):
            if self.attention is not None and layer == self.config.attention:
                x = self.attention(x)
            x = taps.apply(f"F{layer}", block(x, condition[:, layer + 1], rows.slot(layer + 1)))
            if collect.see(f"F{layer}", x):
                return None
        x = self.norm(x, condition[:, -1], rows.slot(-1))
        return torch.tanh(self.torgb(x))

    def first_map(self, condition: Tensor) -> Tensor:
        """The feature map `[B, C, 4, 4]` that the first block reads, from noise and class embedding of slot 0."""
        return self.first(condition).reshape(-1, 4, 4, self.first_channels).permute(0, 3, 1, 2)

    def forward(self, z: Tensor, label: Tensor | int | None = None, truncation: float = 1.0) -> Tensor:
        """Noise `[B, z_dim]` to image `[B, 3, H, W]`."""
        image = self.synthesis(self.mapping(z, label, truncation))
        assert isinstance(image, Tensor)
        return image

    def statistics(self, label: Tensor | int | None = None, samples: int = 0) -> LatentStatistics:
        """There are none: noise is standard normal, and no network makes a w of it.

        Raises:
            InputError: Always.
        """
        raise InputError("BigGAN-deep has no w to measure: its blocks read noise, which is standard normal.")

    def mean_styles(self, label: Tensor | int | None = None) -> Tensor:
        return self.mapping(torch.zeros(1, self.z_dim, dtype=self.dtype, device=self.device), label)[0]

    def style_factor(self, label: Tensor | int | None = None) -> Tensor:
        varies = torch.arange(self.style_dim, device=self.device) < self.z_dim
        return torch.diag(varies.double())

    def class_deviation(self) -> Tensor:
        weight = self.embedding.weight
        return weight.std(dim=1).clamp_min(1e-6) if self.label_dim > 1 else torch.ones_like(weight[:, 0])

    def _typical_styles(self, samples: int) -> Tensor:
        classes = torch.arange(samples, device=self.device) * self.label_dim // samples
        return self.mapping(self.sample_z(samples, seed=1), F.one_hot(classes, self.label_dim))


def _checked(truncation: float) -> float:
    if not 0 <= truncation <= 1:
        raise InputError(f"truncation must be from 0 to 1, where BigGAN-deep has statistics; got {truncation}.")
    return truncation

"""SAM's encoder regime: a network of its own for each space, which sees the picture and the invertibility map.

The map says which pixel is to be inverted in which space, as in Eq. 3.3: a plane for each space, 1 where it is. The
report does not say what the networks are; here they are small residual trunks, with a map2style for each style of W+
and a decoder to the size of the feature for each Δf.

Reference:
    Parmar, 2022, CMU-RI-TR-22-26 (arXiv 2206.08357), section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import InputError
from .._types import Latents
from ..generators._base import AbstractGenerator
from ..regions import Regions
from ._base import ARCHITECTURES, AbstractEncoder, EncoderConfig, framed, resized, usual_config
from ._trunk import REDUCTION, StyleBranch, Trunk, usual_levels
from .gradual import check_heads, check_stages

STYLES = "W+"
SLOPE = 0.2


@dataclass(frozen=True)
class SAMConfig(EncoderConfig):
    """Shape of a :class:`SAMEncoder`.

    Attributes:
        spaces: W+ and feature spaces, the most editable first.
        channels: Of the feature of each space after W+.
        sizes: Height and width of these features.
        per_level: Styles that each level of the pyramid gives, the coarsest first; 3, 4 and the rest if empty.
        widths, blocks, reduction: Of the trunk of each network.
        decoder: Channels of the decoders to Δf.
        head_width: Channels inside each map2style; as many as a style has numbers where 0.
        pooled: Side of the grids to which the features of all stages are averaged, off which styles are read in place
            of map2style, as the Feature-Style encoder does; 0 for map2style.
    """

    spaces: tuple[str, ...] = (STYLES,)
    channels: tuple[int, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    per_level: tuple[int, ...] = ()
    widths: tuple[int, ...] = (32, 64, 96, 128)
    blocks: tuple[int, ...] = (1, 1, 1, 1)
    reduction: int = REDUCTION
    decoder: int = 64
    head_width: int = 0
    pooled: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stages(self.widths, self.blocks, self.reduction)
        if self.per_level and (len(self.per_level) != 3 or sum(self.per_level) != self.num_styles):
            raise InputError(f"per_level must share {self.num_styles} styles out among 3 levels; got {self.per_level}.")
        check_heads(self.head_width, self.pooled)
        if self.decoder < 1:
            raise InputError(f"decoder must be from 1 up, got {self.decoder}.")
        if self.spaces[:1] != (STYLES,) or len(set(self.spaces)) != len(self.spaces):
            raise InputError(f"The encoder needs {STYLES} and then different feature spaces, not {self.spaces}.")
        if not len(self.spaces) - 1 == len(self.channels) == len(self.sizes):
            raise InputError(
                f"channels and sizes must be one for each of {', '.join(self.spaces[1:]) or 'no space'}; got "
                f"{self.channels} and {self.sizes}."
            )


@ARCHITECTURES.register("sam")
class SAMEncoder(AbstractEncoder):
    """Gives W+ and a Δf for each feature space, 0 for spaces that no pixel of a picture belongs to.

    Before training Δf is 0. It comes in units of each channel's deviation, ``deviation<k>`` `[C]`.
    """

    architecture = "sam"
    configuration = SAMConfig
    takes_regions = True

    def __init__(self, config: SAMConfig) -> None:
        super().__init__(config)
        self.provides = frozenset(config.spaces)
        inputs, sizes = 3 + len(config.spaces), (config.widths, config.blocks, config.reduction)
        levels = config.per_level or usual_levels(config.num_styles)
        self.styles = StyleBranch(
            inputs,
            config.style_dim,
            max(config.image_size),
            levels,
            *sizes,
            pyramid=not config.pooled,
            head_width=config.head_width,
            pooled=config.pooled,
        )
        self.features = nn.ModuleList(
            FeatureDecoder(inputs, channels, size, config.image_size, config.decoder, *sizes)
            for channels, size in zip(config.channels, config.sizes)
        )
        for k, channels in enumerate(config.channels):
            self.register_buffer(f"deviation{k}", torch.ones(channels))

    @classmethod
    def config_for(cls, generator: AbstractGenerator, **settings: Any) -> SAMConfig:
        spaces = tuple(settings.get("spaces", generator.default_spaces))
        shapes = [generator.site(name).shape for name in spaces[1:]]
        fitting = {
            "spaces": spaces,
            "channels": tuple(shape[0] for shape in shapes),
            "sizes": tuple((shape[1], shape[2]) for shape in shapes),
        }
        return SAMConfig(**{**usual_config(generator), **fitting, **settings})

    def fit_to(self, generator: AbstractGenerator) -> None:
        self.fit_deviations(generator)

    def fit_deviations(self, generator: AbstractGenerator) -> None:
        """Take the units of Δf from the features of a generator; done once before training."""
        for k, space in enumerate(self.config.spaces[1:]):
            self.get_buffer(f"deviation{k}").copy_(generator.feature_deviation(space))

    def forward(self, seen: Tensor, spaces: Sequence[str] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Codes `[B, L, D]`, to be added to the mean styles, and Δf `[B, C, h, w]` of all spaces, or of some.

        Args:
            seen: Pictures and maps `[B, 3 + K, h, w]` at the encoder's size.
            spaces: Whose Δf is wanted; all where None.
        """
        codes, _ = self.styles(seen)
        found = {}
        for k, (space, network) in enumerate(zip(self.config.spaces[1:], self.features)):
            if spaces is None or space in spaces:
                found[space] = network(seen) * self.get_buffer(f"deviation{k}")[:, None, None]
        return codes, found

    def planes(self, regions: Regions) -> Tensor:
        """The map `[B, K, h, w]` of regions at the encoder's size, a plane in [0, 1] for each of its spaces."""
        none = torch.zeros_like(regions.labels, dtype=torch.bool)[:, None]
        masks = [regions.full(space) if space in regions.spaces else none for space in self.config.spaces]
        stacked = torch.cat(masks, dim=1).to(self._like)
        return resized(framed(stacked, self.config.image_size, fill=0.0), self.config.image_size)

    def _check_sites(self, generator: AbstractGenerator) -> None:
        config = self.config
        for space, channels, size in zip(config.spaces[1:], config.channels, config.sizes):
            mine = (channels, *size)
            others = generator.sites[space].shape if space in generator.sites else None
            if mine != others:
                raise InputError(
                    f"This encoder gives a change {list(mine)} of {space}; this generator has "
                    f"{'no such feature' if others is None else list(others)}. Take an encoder that was trained for it."
                )

    def _encode(self, image: Tensor, generator: AbstractGenerator, regions: Regions | None) -> Latents:
        assert regions is not None
        if (len(regions), *regions.size) != (len(image), *image.shape[2:]):
            raise InputError(
                f"The regions are for {len(regions)} pictures of {regions.size}, but there are {len(image)} of "
                f"{tuple(image.shape[2:])} (height, width)."
            )
        seen = torch.cat([self.see(image), self.planes(regions).to(image.device)], dim=1)
        codes, changes = self(seen, regions.spaces)
        found: Latents = {STYLES: {"w": codes + self.mean_styles(generator)}}
        for space, delta in changes.items():
            # Elsewhere Δf has no effect, and was never asked to have a sensible one.
            mask = regions.mask(space, generator.site(space)) > 0
            found[space] = {"delta": delta * mask.to(delta)}
        return found


class FeatureDecoder(nn.Module):
    """A picture with its map `[B, 3 + K, H, W]` to a change `[B, C, h, w]` of a feature.

    The trunk's stages are joined from coarse to fine, up to the first one that is as large as the feature.

    Args:
        inputs: Channels of the picture with its map.
        outputs: Channels of the feature.
        size: Height and width of the feature.
        image_size: Height and width of the picture.
        width: Channels of the decoder.
        widths, blocks, reduction: Of the trunk.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: tuple[int, int],
        image_size: tuple[int, int],
        width: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        reduction: int,
    ) -> None:
        super().__init__()
        self.size = (size[0], size[1])
        # The finest stage that is joined: the first one, from the coarsest, that is as large as the feature.
        large = [all(side >> (k + 1) >= want for side, want in zip(image_size, size)) for k in range(len(widths))]
        self.first = max((k for k, fits in enumerate(large) if fits), default=0)
        self.trunk = Trunk(inputs, widths, blocks, reduction)
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in widths[self.first :])
        self.merges = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in self.laterals[1:])
        self.hidden = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, outputs, 1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, seen: Tensor) -> Tensor:
        stages = self.trunk(seen)[self.first :]
        x = self.laterals[-1](stages[-1])
        for k in range(len(stages) - 2, -1, -1):
            x = self.merges[k](F.leaky_relu(x, SLOPE))
            x = F.interpolate(x, size=stages[k].shape[2:], mode="bilinear", align_corners=False)
            x = x + self.laterals[k](stages[k])
        x = self.hidden(F.leaky_relu(resized(x, self.size), SLOPE))
        return self.last(F.leaky_relu(x, SLOPE))

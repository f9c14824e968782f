"""The Feature-Style encoder: styles for W+, and a feature code that takes the place of a generator's feature.

Reference:
    Yao et al., 2022, arXiv 2202.02183, section 3.1.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import InputError
from .._types import Latents
from ..generators._base import AbstractGenerator
from ..metrics.layers import ARCFACE_BLOCKS, ARCFACE_WIDTHS, ArcFaceBlock
from ..regions import Regions
from ._base import ARCHITECTURES, AbstractEncoder, EncoderConfig, framed, resized, usual_config
from ._trunk import pooled_stages
from .gradual import check_stages

USUAL = 5
"""K of the published encoders: F enters convolution 5, so it stands where F4 does."""
POOLED = 3
"""Side of the grid to which the features of each stage are averaged."""
SAMPLES = 32
"""Samples by which the feature is measured before a training."""
FEATURE_SOURCE = 8
"""Factor by which the features that F comes from are smaller than the picture."""


@dataclass(frozen=True)
class FeatureStyleConfig(EncoderConfig):
    """Shape of a :class:`FeatureStyleEncoder`.

    Attributes:
        layer: K of the space ``FS<K>``.
        channels: Of the feature code.
        stride: By which the feature branch makes the third stage's output smaller.
        size: Height and width of the feature code, if they are not what comes out at this stride.
        feature_branch: Whether it gives a feature code; without it W+ alone (B of table 4).
        widths, blocks: Of the trunk's stages.
    """

    layer: int = USUAL
    channels: int = 512
    stride: int = 2
    size: tuple[int, int] | None = None
    feature_branch: bool = True
    widths: tuple[int, ...] = ARCFACE_WIDTHS
    blocks: tuple[int, ...] = ARCFACE_BLOCKS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stages(self.widths, self.blocks)
        if min(self.layer, self.channels, self.stride) < 1:
            raise InputError(f"layer, channels and stride must be from 1 up, got {self}.")

    @property
    def feature_size(self) -> tuple[int, int]:
        """Height and width of the feature code."""
        return self.size or self.native_size

    @property
    def native_size(self) -> tuple[int, int]:
        """Height and width of what comes out at the stride."""
        height, width = (math.ceil(math.ceil(side / FEATURE_SOURCE) / self.stride) for side in self.image_size)
        return (height, width)


@ARCHITECTURES.register("feature-style")
class FeatureStyleEncoder(AbstractEncoder):
    """Gives W+ and FS<K>; array names are the published ones."""

    architecture = "feature-style"
    configuration = FeatureStyleConfig

    def __init__(self, config: FeatureStyleConfig) -> None:
        super().__init__(config)
        self.provides = frozenset({"W+", f"FS{config.layer}"} if config.feature_branch else {"W+"})
        widths = config.widths
        self.conv = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        )
        pairs = zip(itertools.pairwise((widths[0], *widths)), config.blocks)
        for number, ((before, width), count) in enumerate(pairs, start=1):
            blocks = [ArcFaceBlock(before if k == 0 else width, width, 2 if k == 0 else 1) for k in range(count)]
            self.add_module(f"block_{number}", nn.Sequential(*blocks))
        if config.feature_branch:
            self.content_layer = _feature_branch(widths[2], config.channels, config.stride)
        pooled = sum(widths) * POOLED**2
        self.styles = nn.ModuleList(nn.Linear(pooled, config.style_dim) for _ in range(config.num_styles))

    @classmethod
    def config_for(cls, generator: AbstractGenerator, **settings: Any) -> FeatureStyleConfig:
        layer = settings.get("layer", USUAL)
        channels, height, width = generator.site(f"F{layer - 1}").shape
        usual = usual_config(generator)
        # The feature is not to come from a coarser one.
        side = max(usual["image_size"][0], FEATURE_SOURCE << (max(height, width) - 1).bit_length())
        fields: dict[str, Any] = {**usual, "image_size": (side, side), "channels": channels, **settings}
        source = math.ceil(max(fields["image_size"]) / FEATURE_SOURCE)
        config = FeatureStyleConfig(**{"stride": max(1, source // max(height, width)), **fields})
        fits = config.size or config.native_size == (height, width)
        return config if fits else replace(config, size=(height, width))

    @torch.no_grad()
    def fit_to(self, generator: AbstractGenerator) -> None:
        """Let a training start with feature codes of the mean and the deviation that the feature has in samples."""
        if not self.config.feature_branch:
            return
        site = f"F{self.config.layer - 1}"
        found = generator.synthesis(generator._typical_styles(SAMPLES), until=site)
        assert isinstance(found, dict)
        last: Any = self.content_layer[-1]
        last.weight.copy_(generator.feature_deviation(site))
        last.bias.copy_(found[site].mean(dim=(0, 2, 3)))

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor | None]:
        """Codes `[B, L, D]`, to be added to the mean styles, and the feature code `[B, C, h, w]`, if it gives one."""
        stages = [self.conv(seen)]
        for number in range(1, 5):
            stages.append(self.get_submodule(f"block_{number}")(stages[-1]))
        flat = pooled_stages(stages[1:], POOLED)
        codes = torch.stack([style(flat) for style in self.styles], dim=1)
        if not self.config.feature_branch:
            return codes, None
        return codes, resized(self.content_layer(stages[3]), self.config.feature_size)

    def see(self, image: Tensor) -> Tensor:
        # As published, by halvings: each is a mean over 2 x 2 pixels.
        size = self.config.image_size
        image = framed(image, size)
        while all(side % 2 == 0 and side // 2 >= wanted for side, wanted in zip(image.shape[2:], size)):
            image = F.avg_pool2d(image, 2)
        return resized(image, size)

    def _check_sites(self, generator: AbstractGenerator) -> None:
        site, config = f"F{self.config.layer - 1}", self.config
        if not config.feature_branch:
            return
        mine = (config.channels, *config.feature_size)
        others = generator.sites[site].shape if site in generator.sites else None
        if mine != others:
            raise InputError(
                f"This encoder gives a feature code {list(mine)} in the place of {site}; this generator has "
                f"{'no such feature' if others is None else list(others)} there. Take an encoder that was trained for "
                "it."
            )

    def _encode(self, image: Tensor, generator: AbstractGenerator, regions: Regions | None) -> Latents:
        codes, feature = self(self.see(image))
        found: Latents = {"W+": {"w": codes + self.mean_styles(generator)}}
        return found if feature is None else {**found, f"FS{self.config.layer}": {"feature": feature}}


def _feature_branch(inputs: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(inputs),
        nn.Conv2d(inputs, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.PReLU(channels),
        nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    )

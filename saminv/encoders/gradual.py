"""The encoders pSp, e4e and ReStyle: a style for each layer, read off a residual trunk.

pSp reads every style off the trunk by itself. e4e reads the first one off, and for the others how they differ from it.
ReStyle looks at the picture beside what its last guess renders to, and says by how much that guess is to be moved.

Reference:
    pSp: Richardson et al., 2020, arXiv 2008.00951; e4e: Tov et al., 2021, arXiv 2102.02766; ReStyle: Alaluf et al.,
    2021, arXiv 2104.02699.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from .._types import Latents
from ..generators._base import AbstractGenerator
from ..images import area_resize
from ..regions import Regions
from ._base import ARCHITECTURES, AbstractEncoder, EncoderConfig, framed, usual_config
from ._trunk import IR_BLOCKS, REDUCTION, RESNET_BLOCKS, WIDTHS, StyleBranch, usual_levels

TRUNKS = ("ir-se", "resnet")
MOST_BLOCKS = 100
"""Of a stage; a damaged file may say more."""
MOST_POOLED = 32
"""Largest side of the grids off which styles are read."""
ITERATIONS = 5
"""Times that the published ReStyle encoders look."""


@dataclass(frozen=True)
class GradualConfig(EncoderConfig):
    """Shape of a :class:`GradualEncoder`.

    Attributes:
        deltas: Styles after the first are differences from it (e4e), not styles themselves (pSp).
        iterations: Times that it looks; 0 for encoders that see the picture alone, ReStyle's look at least once.
        per_level: Styles that each level of the pyramid gives, the coarsest first; 3, 4 and the rest if empty.
        pyramid: Whether finer levels than the last one are read; ReStyle's simplified trunks do without.
        trunk: "ir-se" (IR-SE-50), or "resnet" (ResNet-34).
        widths: Channels of the four stages.
        blocks: Blocks of the four stages; those of the trunk's name if empty.
        reduction: Of squeeze and excitation.
        head_width: Channels inside each map2style; as many as a style has numbers where 0, as published.
        pooled: Side of the grids to which the features of all stages are averaged, off which styles are read in place
            of map2style, as the Feature-Style encoder does; 0 for map2style, as published.
    """

    deltas: bool = False
    iterations: int = 0
    per_level: tuple[int, ...] = ()
    pyramid: bool = True
    trunk: str = "ir-se"
    widths: tuple[int, ...] = WIDTHS
    blocks: tuple[int, ...] = ()
    reduction: int = REDUCTION
    head_width: int = 0
    pooled: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trunk not in TRUNKS:
            raise InputError(f"trunk must be one of {', '.join(TRUNKS)}; got {self.trunk!r}.")
        if self.iterations < 0:
            raise InputError(f"iterations must be from 0 up, got {self.iterations}.")
        check_heads(self.head_width, self.pooled)
        check_stages(self.widths, self.all_blocks, self.reduction if self.trunk == "ir-se" else 1)
        if sum(self.levels) != self.num_styles or (not self.pyramid and any(self.levels[1:])):
            raise InputError(
                f"per_level must share {self.num_styles} styles out among the levels that there are; got {self.levels}."
            )

    @property
    def levels(self) -> tuple[int, ...]:
        """Styles that each level gives, the coarsest first."""
        if self.per_level:
            return self.per_level
        return usual_levels(self.num_styles) if self.pyramid else (self.num_styles,)

    @property
    def all_blocks(self) -> tuple[int, ...]:
        """Blocks of the four stages."""
        return self.blocks or (IR_BLOCKS if self.trunk == "ir-se" else RESNET_BLOCKS)


@ARCHITECTURES.register("gradual")
class GradualEncoder(AbstractEncoder):
    """pSp, e4e or ReStyle, as the configuration says; gives W+."""

    architecture = "gradual"
    configuration = GradualConfig
    provides = frozenset({"W+"})

    def __init__(self, config: GradualConfig) -> None:
        super().__init__(config)
        self.branch = StyleBranch(
            6 if config.iterations else 3,
            config.style_dim,
            max(config.image_size),
            config.levels,
            config.widths,
            config.all_blocks,
            config.reduction,
            resnet=config.trunk == "resnet",
            pyramid=config.pyramid and not config.pooled,
            head_width=config.head_width,
            pooled=config.pooled,
        )

    @classmethod
    def config_for(cls, generator: AbstractGenerator, **settings: Any) -> GradualConfig:
        return GradualConfig(**{**usual_config(generator), **settings})

    def forward(self, seen: Tensor) -> Tensor:
        """Codes `[B, L, D]`, to be added to the mean styles, of pictures `[B, 3 or 6, h, w]` at the encoder's size."""
        codes, _ = self.branch(seen)
        if self.config.deltas:
            first = torch.zeros_like(codes)
            first[:, 1:] = codes[:, :1]
            codes = codes + first
        return codes

    def guesses(self, image: Tensor, generator: AbstractGenerator) -> Iterator[Tensor]:
        """Styles `[B, L, D]` after each look; without refinement there is one.

        Reference: Alaluf et al., 2021, section 3.
        """
        seen, styles = self.see(image), self.mean_styles(generator).expand(len(image), -1, -1)
        if not self.config.iterations:
            yield styles + self(seen)
            return
        for _ in range(self.config.iterations):
            styles = styles + self(torch.cat([seen, self._rendered(styles, generator)], dim=1))
            yield styles

    def _rendered(self, styles: Tensor, generator: AbstractGenerator) -> Tensor:
        """What styles render to, at the encoder's size."""
        image = generator.synthesis(styles.to(generator.device, generator.dtype))
        assert isinstance(image, Tensor)
        return area_resize(framed(image, self.config.image_size), self.config.image_size).to(styles)

    def _encode(self, image: Tensor, generator: AbstractGenerator, regions: Regions | None) -> Latents:
        *_, styles = self.guesses(image, generator)
        return {"W+": {"w": styles}}


def check_heads(head_width: int, pooled: int) -> None:
    """Raise ``InputError`` unless styles can be read off so."""
    if head_width < 0 or pooled not in range(MOST_POOLED + 1):
        raise InputError(
            f"head_width must be from 0 up and pooled from 0 to {MOST_POOLED}, got {head_width} and {pooled}."
        )


def check_stages(widths: tuple[int, ...], blocks: tuple[int, ...], reduction: int = 1) -> None:
    """Raise ``InputError`` unless these are widths and blocks of four stages."""
    four = len(widths) == len(blocks) == 4 and min((*widths, *blocks, reduction)) > 0
    if not four or min(widths) < reduction or max(blocks) > MOST_BLOCKS:
        raise InputError(
            f"An encoder has four stages: widths must be four numbers from reduction ({reduction}) up and blocks four "
            f"from 1 to {MOST_BLOCKS}; got {widths} and {blocks}."
        )

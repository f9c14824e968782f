"""PadInv's encoder: styles for W+, and the padding of the early layers.

Reference:
    Bai et al., 2022, arXiv 2203.11105, section 3.3, and table S1 of its supplement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import InputError
from .._types import Latents, Value
from ..generators._base import AbstractGenerator
from ..ops.instance_padding import ring_of
from ..regions import Regions
from ._base import ARCHITECTURES, AbstractEncoder, EncoderConfig, resized, usual_config
from ._trunk import IR_BLOCKS, REDUCTION, WIDTHS, IRBlock, StyleBranch, usual_levels
from .gradual import check_heads, check_stages

PADDINGS = (0, 1, 3, 5, 7)
"""Those of the space "P": the constant, and one ring for each resolution from 4 to 32."""
MAP_SIDE = 34
"""Of a padding map: what a feature of 32 x 32 and its ring need."""
CONSTANT = "P0"
LEVEL = 1
"""Level of the pyramid, counted from the coarsest, that the published paddings are read off: 32 x 32 of 256 x 256."""
LEVELS = 3
EXTRACTORS = 2
"""Residual blocks before the convolutions to the paddings."""


@dataclass(frozen=True)
class PadInvConfig(EncoderConfig):
    """Shape of a :class:`PadInvEncoder`.

    Attributes:
        paddings: Numbers of the paddings that it gives; none makes it its own baseline, which gives W+ alone.
        channels: Of each padding. Padding 0 has those of the pyramid, ``widths[3]``, from which it comes unchanged.
        map_side: Side of the map that holds the rings, larger than the largest feature by 2.
        level: Level of the pyramid that paddings are read off, counted from the coarsest.
        per_level: Styles that each level of the pyramid gives, the coarsest first; 3, 4 and the rest if empty.
        widths, blocks, reduction: Of the trunk.
        head_width: Channels inside each map2style; as many as a style has numbers where 0, as published.
        pooled: Side of the grids to which the features of all stages are averaged, off which styles are read in place
            of map2style, as the Feature-Style encoder does; 0 for map2style, as published.
        sides: Side of the map of each padding where paddings are changes of the generator's own, ours; none where they
            are values, as published. See ``anchored`` of :meth:`PadInvEncoder.config_for`.
    """

    paddings: tuple[int, ...] = PADDINGS
    channels: tuple[int, ...] = (512,) * 5
    map_side: int = MAP_SIDE
    level: int = LEVEL
    per_level: tuple[int, ...] = ()
    widths: tuple[int, ...] = WIDTHS
    blocks: tuple[int, ...] = IR_BLOCKS
    reduction: int = REDUCTION
    head_width: int = 0
    sides: tuple[int, ...] = ()
    pooled: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stages(self.widths, self.blocks, self.reduction)
        check_heads(self.head_width, self.pooled)
        if self.level not in range(LEVELS):
            raise InputError(f"level must be from 0 to {LEVELS - 1}, got {self.level}.")
        if sum(self.levels) != self.num_styles or len(self.levels) != LEVELS:
            raise InputError(f"per_level must share {self.num_styles} styles out among 3 levels; got {self.levels}.")
        if len(self.channels) != len(self.paddings) or list(self.paddings) != sorted(set(self.paddings)):
            raise InputError(
                f"paddings must be different numbers in order, and channels one number for each; got {self.paddings} "
                f"and {self.channels}."
            )
        if self.sides and (len(self.sides) != len(self.paddings) or min(self.sides) < 1):
            raise InputError(f"sides must be a positive number for each of {self.paddings}, or none; got {self.sides}.")
        if self.paddings[:1] == (0,) and not self.anchored and self.channels[0] != self.widths[3]:
            raise InputError(
                f"Padding 0 comes from the pyramid unchanged, so widths must end with its {self.channels[0]} channels; "
                f"got {self.widths}. Or let it be anchored."
            )

    @property
    def levels(self) -> tuple[int, ...]:
        """Styles that each level gives, the coarsest first."""
        return self.per_level or usual_levels(self.num_styles)

    @property
    def anchored(self) -> bool:
        """Whether paddings are changes of the generator's own."""
        return bool(self.sides)

    @property
    def space(self) -> str:
        """Name of the space of its paddings."""
        return "P" if self.paddings == PADDINGS else f"P[{','.join(map(str, self.paddings))}]"


@ARCHITECTURES.register("padinv")
class PadInvEncoder(AbstractEncoder):
    """Gives W+ and a space of paddings."""

    architecture = "padinv"
    configuration = PadInvConfig

    def __init__(self, config: PadInvConfig) -> None:
        super().__init__(config)
        self.provides = frozenset({"W+", config.space} if config.paddings else {"W+"})
        self.branch = StyleBranch(
            3,
            config.style_dim,
            max(config.image_size),
            config.levels,
            config.widths,
            config.blocks,
            config.reduction,
            # Paddings are read off its levels too.
            pyramid=bool(config.paddings) or not config.pooled,
            head_width=config.head_width,
            pooled=config.pooled,
        )
        if not config.paddings:
            return
        width = config.widths[3]
        self.extractor = nn.Sequential(*(IRBlock(width, width, 1, config.reduction) for _ in range(EXTRACTORS)))
        self.paddings = nn.ModuleDict(
            {
                str(k): nn.Conv2d(width, count, 1)
                for k, count in zip(config.paddings, config.channels)
                if k or config.anchored
            }
        )
        for k, count in zip(config.paddings, config.channels) if config.anchored else ():
            self.register_buffer(f"deviation{k}", torch.ones(count))

    @classmethod
    def config_for(cls, generator: AbstractGenerator, *, anchored: bool = False, **settings: Any) -> PadInvConfig:
        """A configuration that fits a generator.

        Args:
            generator: Whose paddings it is to give.
            anchored: Whether paddings are changes of the generator's own in units of its deviations, each by a
                convolution of its own and read off the whole map at its own size. As published they are values, read
                off the middle of one large map, and the constant is that map itself: a network without a wide view
                sees nearly the same at all positions there, and takes long to learn a constant that differs.
            settings: Further fields.
        """
        offered = [k for k in PADDINGS if f"P{k}" in generator.sites]
        numbers = tuple(settings.get("paddings", offered))
        shapes = {k: generator.site(f"P{k}").shape for k in numbers}
        side = max((_side(shape) for k, shape in shapes.items() if k), default=0)
        usual = usual_config(generator)
        coarsest = max(settings.get("image_size", usual["image_size"])) // 16
        fitting: dict[str, Any] = {
            "paddings": numbers,
            "channels": tuple(shape[0] for shape in shapes.values()),
            "map_side": max(side + 2, 4),
            # The level of the largest feature that is padded, as published, or the finest one.
            "level": next((level for level in range(LEVELS) if coarsest << level >= side), LEVELS - 1),
        }
        if anchored:
            fitting["sides"] = tuple(_side(shape) + 2 if k else shape[1] for k, shape in shapes.items())
        return PadInvConfig(**{**usual, **fitting, **settings})

    @torch.no_grad()
    def fit_to(self, generator: AbstractGenerator) -> None:
        """Let a training start with the generator's own rings, which are zeros; and constant, if that is anchored."""
        config = self.config
        for weight in self.paddings.parameters() if config.paddings else ():
            weight.zero_()
        for k in config.paddings if config.anchored else ():
            self.get_buffer(f"deviation{k}").copy_(generator.padding_deviation(f"P{k}"))

    def forward(self, seen: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Codes `[B, L, D]`, to be added to the mean styles, and a map `[B, C, T, T]` for each padding by number."""
        codes, levels = self.branch(seen)
        if not self.config.paddings:
            return codes, {}
        extracted = self.extractor(levels[-1 - self.config.level])
        if self.config.anchored:
            sides = zip(self.paddings.items(), self.config.sides)
            return codes, {int(k): head(resized(extracted, (side, side))) for (k, head), side in sides}
        shared = F.interpolate(extracted, [self.config.map_side] * 2, mode="bicubic", align_corners=True)
        maps = {0: shared} if self.config.paddings[0] == 0 else {}
        return codes, maps | {int(k): head(shared) for k, head in self.paddings.items()}

    def _check_sites(self, generator: AbstractGenerator) -> None:
        for number, channels in zip(self.config.paddings, self.config.channels):
            if f"P{number}" not in generator.sites:
                raise InputError(
                    f"This encoder gives the padding P{number}, which this generator does not have. Take an encoder "
                    "that was trained for it."
                )
            shape = generator.site(f"P{number}").shape
            side = dict(zip(self.config.paddings, self.config.sides)).get(number, self.config.map_side)
            spare = side - (_side(shape) + 2 if number else shape[1])
            if shape[0] != channels or spare < 0 or spare % 2:
                raise InputError(
                    f"This encoder gives P{number} of {channels} channels on maps of {side} x {side}; this generator "
                    f"needs {list(shape)}. Take an encoder that was trained for it."
                )

    def _encode(self, image: Tensor, generator: AbstractGenerator, regions: Regions | None) -> Latents:
        codes, maps = self(self.see(image))
        styles = codes + self.mean_styles(generator)
        found: Latents = {"W+": {"w": styles}}
        if maps:
            values = {f"P{k}": part_of(x, generator.site(f"P{k}").shape) for k, x in maps.items()}
            found[self.config.space] = self._changed(values, generator, styles) if self.config.anchored else values
        return found

    def _changed(self, changes: Value, generator: AbstractGenerator, styles: Tensor) -> Value:
        """The generator's own paddings, rings of zeros and a constant, changed."""
        scales = {name: self.get_buffer(f"deviation{name[1:]}") for name in changes}
        found = {name: x * scales[name].reshape(-1, *[1] * (x.dim() - 2)) for name, x in changes.items()}
        if CONSTANT in found:
            known = generator.synthesis(styles.detach().to(generator.dtype), until=CONSTANT)
            assert isinstance(known, dict)
            found[CONSTANT] = found[CONSTANT] + known[CONSTANT].to(found[CONSTANT])
        return found


def part_of(padding: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What a site of a shape `(C, 4, 4)` or `(C, 4 (n + 1))` reads of a padding map `[B, C, T, T]`, from its middle."""
    if len(shape) == 2:
        return ring_of(padding, _side(shape), _side(shape))
    top, left = ((have - want) // 2 for have, want in zip(padding.shape[2:], shape[1:]))
    return padding[:, :, top : top + shape[1], left : left + shape[2]]


def _side(shape: tuple[int, ...]) -> int:
    """Side n of the feature around which a ring of a shape `(C, 4 (n + 1))` lies."""
    return shape[1] // 4 - 1

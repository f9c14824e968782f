"""N: the noise maps of all layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .._types import Latents, Value
from ..generators import AbstractGenerator
from ..sites import Replace, Tap
from ._base import SPACES, AbstractSpace, SpaceOptions


@SPACES.register("N")
class NoiseSpace(AbstractSpace):
    """Noise maps `[B, 1, h, w]`, one per layer; starts at the generator's constant noise.

    Reference: Abdal et al., 2020, arXiv 1911.11544 (noise as a variable of the inversion).
    """

    rank = 100.0

    def __init__(self, name: str, options: SpaceOptions) -> None:
        self.name, self.options = name, options

    @classmethod
    def names(cls, generator: AbstractGenerator) -> list[str]:
        return [] if cls.absence(generator) else ["N"]

    @classmethod
    def absence(cls, generator: AbstractGenerator) -> str:
        return "" if any(site.kind == "noise" for site in generator.sites.values()) else "no layer adds noise"

    def sites(self, generator: AbstractGenerator) -> tuple[str, ...]:
        return tuple(name for name, site in generator.sites.items() if site.kind == "noise")

    @torch.no_grad()
    def init(self, generator: AbstractGenerator, styles: Tensor, warm: Latents | None = None) -> Value:
        names = self.sites(generator)
        maps = generator.synthesis(styles[:1], until=names)
        assert isinstance(maps, dict)
        batch = styles.shape[0]
        return self._warm(warm, {name: maps[name].expand(batch, -1, -1, -1).clone() for name in names})

    def bind(self, generator: AbstractGenerator, value: Value, mask: Tensor | None) -> list[Tap]:
        return [Replace(name, value[name]) for name in self.sites(generator)]

    def penalty(self, generator: AbstractGenerator, value: Value, start: Value) -> dict[str, Tensor]:
        changes = [(value[name] - start[name]).square().mean(dim=(1, 2, 3)) for name in value]
        correlations = [correlation(value[name]) for name in value]
        return {"noise": torch.stack(changes).sum(dim=0), "correlation": torch.stack(correlations).sum(dim=0)}


def correlation(maps: Tensor) -> Tensor:
    """How far noise `[B, 1, h, w]` is from white, `[B]`: squared correlations of neighbours, at all sizes down to 8.

    Reference: Karras et al., 2020, arXiv 1912.04958, appendix D.
    """
    total = maps.new_zeros(len(maps))
    while True:
        for axis in (2, 3):
            total = total + (maps * maps.roll(1, axis)).mean(dim=(1, 2, 3)).square()
        if min(maps.shape[2:]) <= 8:
            return total
        # The sum of four, over 2, of white noise is white noise of the same size.
        maps = 2 * F.avg_pool2d(maps, 2)

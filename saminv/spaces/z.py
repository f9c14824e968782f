"""Z, the input noise of the mapping."""

from __future__ import annotations

import torch
from torch import Tensor

from .._types import Latents, Value
from ..generators import AbstractGenerator
from ..sites import Replace, Tap
from ._base import SPACES, AbstractStyleSpace, SpaceOptions

CANDIDATES = 1000


@SPACES.register("Z")
class ZSpace(AbstractStyleSpace):
    """Input noise `[B, Z]`; starts at the random noise whose w is nearest to the start styles."""

    rank = -1.0

    def __init__(self, name: str, options: SpaceOptions) -> None:
        self.name, self.options = name, options

    @classmethod
    def names(cls, generator: AbstractGenerator) -> list[str]:
        return ["Z"]

    @torch.no_grad()
    def init(self, generator: AbstractGenerator, styles: Tensor, warm: Latents | None = None) -> Value:
        if warm and self.name in warm:
            empty = torch.zeros(styles.shape[0], generator.z_dim, device=styles.device, dtype=styles.dtype)
            return self._warm(warm, {"z": empty})
        z = generator.sample_z(CANDIDATES, seed=0)
        distance = torch.cdist(styles.mean(dim=1), generator.mapping(z, self.options.label)[:, 0])
        return {"z": z[distance.argmin(dim=1)].clone()}

    def bind(self, generator: AbstractGenerator, value: Value, mask: Tensor | None) -> list[Tap]:
        return [Replace("styles", self.styles(generator, value))]

    def styles(self, generator: AbstractGenerator, value: Value) -> Tensor:
        return generator.mapping(value["z"], self.options.label)

    def penalty(self, generator: AbstractGenerator, value: Value, start: Value) -> dict[str, Tensor]:
        return {"noise_prior": value["z"].square().mean(dim=1)}

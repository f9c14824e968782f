"""Z, one noise for the whole picture, and Z+, one per block where blocks read it."""

from __future__ import annotations

import torch
from torch import Tensor

from .._types import Latents, Value
from ..generators import AbstractGenerator
from ..sites import Replace, Tap
from ._base import SPACES, AbstractStyleSpace, SpaceOptions, mean_slot
from .priors import deviation, standard_prior

CANDIDATES = 1000


@SPACES.register("Z")
class ZSpace(AbstractStyleSpace):
    """Input noise `[B, Z]`.

    It starts at the random noise whose w is nearest to the start styles, or at the mean of the noise that blocks read.
    """

    rank = -1.0

    def __init__(self, name: str, options: SpaceOptions) -> None:
        self.name, self.options = name, options

    @classmethod
    def names(cls, generator: AbstractGenerator) -> list[str]:
        return ["Z"]

    @torch.no_grad()
    def init(self, generator: AbstractGenerator, styles: Tensor, warm: Latents | None = None) -> Value:
        if "z" in generator.sites:
            return self._warm(warm, {"z": mean_slot(block_noise(generator, styles))})
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


@SPACES.register("Z+")
class ZPlusSpace(AbstractStyleSpace):
    """Noise of each block `[B, L, Z]`, which is standard normal; the class is that of the label.

    Reference: Parmar, 2022, CMU-RI-TR-22-26 (arXiv 2206.08357), Fig. 4.4.
    """

    rank = 1.0
    layered = True

    def __init__(self, name: str, options: SpaceOptions) -> None:
        self.name, self.options = name, options

    @classmethod
    def names(cls, generator: AbstractGenerator) -> list[str]:
        return [] if cls.absence(generator) else ["Z+"]

    @classmethod
    def absence(cls, generator: AbstractGenerator) -> str:
        if "z" in generator.sites:
            return ""
        return (
            "its layers read no noise of their own, but the w that a mapping network makes of it: W+ is one per layer"
        )

    def init(self, generator: AbstractGenerator, styles: Tensor, warm: Latents | None = None) -> Value:
        return self._warm(warm, {"z": block_noise(generator, styles).clone()})

    def bind(self, generator: AbstractGenerator, value: Value, mask: Tensor | None) -> list[Tap]:
        return [Replace("styles", self.styles(generator, value))]

    def styles(self, generator: AbstractGenerator, value: Value) -> Tensor:
        return generator.mapping(value["z"], self.options.label)

    def penalty(self, generator: AbstractGenerator, value: Value, start: Value) -> dict[str, Tensor]:
        return {"prior": standard_prior(value["z"]), "deviation": deviation(value["z"], self.options.formulation)}


@torch.no_grad()
def block_noise(generator: AbstractGenerator, styles: Tensor) -> Tensor:
    """Noise `[B, L, Z]` that is a part of styles."""
    found = generator.synthesis(styles, until="z")
    assert isinstance(found, dict)
    return found["z"]

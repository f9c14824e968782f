"""G: a change of the generator's weights, so that each image has a generator of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from .._types import Latents, Value
from ..generators import AbstractGenerator
from ..generators._base import WEIGHTS
from ..sites import Add, Tap, zero_like_site
from ._base import SPACES, AbstractSpace, SpaceOptions

REACH = 1.0
"""How far from the pivot the generator is held, in deviations of codes from their mean."""
SAMPLES = 200
"""Random codes from which that deviation is known."""


@SPACES.register("G")
class GeneratorSpace(AbstractSpace):
    """Change `[B, N]` of all N weights that a synthesis reads, in one row; starts at zero.

    Every image is rendered by itself, and gradients of weights are computed, so a step costs far more than in other
    spaces; memory is several times the size of the generator for each image. It acts on the whole picture, so τ never
    gives it segments; an edit leaves it as it is.

    The part "locality" of the objective, left out unless it has a weight, compares what the changed and the unchanged
    generator make of a code near the pivot (Eq. 4 to 6 of the paper). That code is drawn once and not at every step, so
    that the objective is one function; its distance from the pivot is that of samples from their mean.

    Reference:
        Roich et al., 2021, "Pivotal Tuning for Latent-based Editing of Real Images", arXiv 2106.05744.
    """

    rank = 200.0

    def __init__(self, name: str, options: SpaceOptions) -> None:
        self.name, self.options = name, options

    @classmethod
    def names(cls, generator: AbstractGenerator) -> list[str]:
        return ["G"] if WEIGHTS in generator.sites else []

    @classmethod
    def absence(cls, generator: AbstractGenerator) -> str:
        return "" if cls.names(generator) else "its pictures cannot have weights of their own"

    def sites(self, generator: AbstractGenerator) -> tuple[str, ...]:
        return (WEIGHTS,)

    def init(self, generator: AbstractGenerator, styles: Tensor, warm: Latents | None = None) -> Value:
        return self._warm(warm, {"delta": zero_like_site(generator.site(WEIGHTS), len(styles), styles)})

    def bind(self, generator: AbstractGenerator, value: Value, mask: Tensor | None) -> list[Tap]:
        return [Add(WEIGHTS, value["delta"])]

    def penalty(self, generator: AbstractGenerator, value: Value, start: Value) -> dict[str, Tensor]:
        return {"weights": (value["delta"] - start["delta"]).square().mean(dim=1)}

    @torch.no_grad()
    def anchors(self, generator: AbstractGenerator, styles: Tensor) -> Tensor:
        samples = generator.mapping(generator.sample_z(SAMPLES, seed=2), self.options.label).to(styles)
        spread = (samples - samples.mean(dim=0)).square().sum(dim=2).mean(dim=0).sqrt()
        away = samples[:1] - styles
        distance = away.square().sum(dim=2, keepdim=True).sqrt().clamp_min(1e-12)
        return styles + REACH * spread[:, None] * away / distance

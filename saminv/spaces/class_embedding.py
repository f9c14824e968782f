"""C, the class embedding, one for all blocks, and C+, one per block."""

from __future__ import annotations

import torch
from torch import Tensor

from .._types import Features, Latents, Value
from ..generators import AbstractGenerator
from ..sites import Replace, Tap
from ._base import SPACES, AbstractSpace, SpaceOptions, mean_slot

SITE = "class"


@SPACES.register("C")
class ClassSpace(AbstractSpace):
    """Class embedding `[B, E]` in place of that of the label, where it starts.

    It belongs to the whole picture, so τ never gives it segments; segments of a feature space follow it in the later
    blocks only. Steps and penalty are in units of the standard deviation of embeddings over the classes.

    Reference: Parmar, 2022, CMU-RI-TR-22-26 (arXiv 2206.08357), Fig. 4.4.
    """

    rank = 2.0

    def __init__(self, name: str, options: SpaceOptions) -> None:
        self.name, self.options = name, options

    @classmethod
    def names(cls, generator: AbstractGenerator) -> list[str]:
        return [] if cls.absence(generator) else ["C"]

    @classmethod
    def absence(cls, generator: AbstractGenerator) -> str:
        if SITE in generator.sites:
            return ""
        return "no layer reads a class embedding" + (
            ": the class is an input of the mapping network, label=" if generator.label_dim else ": it has no classes"
        )

    def sites(self, generator: AbstractGenerator) -> tuple[str, ...]:
        return (SITE,)

    def init(self, generator: AbstractGenerator, styles: Tensor, warm: Latents | None = None) -> Value:
        return self._warm(warm, {"class": mean_slot(class_embeddings(generator, styles))})

    def bind(self, generator: AbstractGenerator, value: Value, mask: Tensor | None) -> list[Tap]:
        return [Replace(SITE, value["class"][:, None].expand(-1, generator.num_styles, -1))]

    def edit_taps(
        self, generator: AbstractGenerator, value: Value, mask: Tensor | None, unedited: Features
    ) -> list[Tap]:
        # The edited styles have the embedding in them, and the change on top of it.
        return []

    def penalty(self, generator: AbstractGenerator, value: Value, start: Value) -> dict[str, Tensor]:
        change = (value["class"] - start["class"]) / self._deviation(generator, value["class"])
        return {"class": change.square().flatten(1).mean(dim=1)}

    def step_scale(self, generator: AbstractGenerator, value: Value) -> Value:
        return {"class": self._deviation(generator, value["class"])}

    def _deviation(self, generator: AbstractGenerator, like: Tensor) -> Tensor:
        return generator.class_deviation().to(like)


@SPACES.register("C+")
class LayeredClassSpace(ClassSpace):
    """Class embedding of each block `[B, L, E]`."""

    rank = 3.0

    @classmethod
    def names(cls, generator: AbstractGenerator) -> list[str]:
        return [] if cls.absence(generator) else ["C+"]

    def init(self, generator: AbstractGenerator, styles: Tensor, warm: Latents | None = None) -> Value:
        return self._warm(warm, {"class": class_embeddings(generator, styles).clone()})

    def bind(self, generator: AbstractGenerator, value: Value, mask: Tensor | None) -> list[Tap]:
        return [Replace(SITE, value["class"])]


@torch.no_grad()
def class_embeddings(generator: AbstractGenerator, styles: Tensor) -> Tensor:
    """Class embeddings `[B, L, E]` that are a part of styles."""
    found = generator.synthesis(styles, until=SITE)
    assert isinstance(found, dict)
    return found[SITE]

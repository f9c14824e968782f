"""FS<K>: a feature code that takes the place of the feature which enters convolution K."""

from __future__ import annotations

import torch
from torch import Tensor

from .._errors import InputError
from .._types import Features, Latents, Value
from ..generators import AbstractGenerator
from ..sites import Add, Replace, Tap
from ._base import SPACES, AbstractSpace, SpaceOptions

USUAL = 5
"""K of "FS" alone: the balance of likeness and editing that the paper chooses."""
CHOICES = range(4, 8)
"""K of the paper's comparison."""


@SPACES.register("FS")
class FeatureStyleSpace(AbstractSpace):
    """Feature code F `[B, C, h, w]` of an image, with w for the layers after it.

    Convolutions are counted from 0, and F enters convolution K: so FS5 stands where F4 does, after its toRGB. F leaves
    the styles before it without influence on the picture G(w, F), so the picture G(w) without it is compared with the
    target too, and F is kept near the feature G^K(w) that it replaces (Eq. 4). An edit moves F by what it changes in
    G^K (Eq. 1).

    Reference:
        Yao et al., 2022, arXiv 2202.02183, sections 3.2 and 4.2.
    """

    rank = 60.0
    twin = True

    def __init__(self, name: str, options: SpaceOptions) -> None:
        self.name, self.options = name, options
        self.layer = int(name.removeprefix("FS") or USUAL)

    @classmethod
    def names(cls, generator: AbstractGenerator) -> list[str]:
        possible = [k for k in CHOICES if f"F{k}" in generator.sites]
        return (["FS"] if USUAL in possible else []) + [f"FS{k}" for k in possible]

    @classmethod
    def absence(cls, generator: AbstractGenerator) -> str:
        few = f"a feature code stands before one of the layers {CHOICES[0]} to {CHOICES[-1]}, and it has fewer"
        return "" if cls.names(generator) else few

    @classmethod
    def offers(cls, name: str, generator: AbstractGenerator) -> bool:
        offered = cls.names(generator)
        if offered and name not in offered:
            raise InputError(f"This generator has no space {name!r}; a feature code is one of: {', '.join(offered)}.")
        return bool(offered)

    def sites(self, generator: AbstractGenerator) -> tuple[str, ...]:
        # The feature before its toRGB is the same tensor: what changes it would be lost.
        feature = f"F{self.layer - 1}"
        return tuple(name for name in (f"{feature}.block", feature) if name in generator.sites)

    @torch.no_grad()
    def init(self, generator: AbstractGenerator, styles: Tensor, warm: Latents | None = None) -> Value:
        site = self._site(generator)
        found = generator.synthesis(styles, until=site)
        assert isinstance(found, dict)
        return self._warm(warm, {"feature": found[site].clone()})

    def bind(self, generator: AbstractGenerator, value: Value, mask: Tensor | None) -> list[Tap]:
        return [Replace(self._site(generator), value["feature"])]

    def reference_sites(self, generator: AbstractGenerator) -> tuple[str, ...]:
        return (self._site(generator),)

    def edit_taps(
        self, generator: AbstractGenerator, value: Value, mask: Tensor | None, unedited: Features
    ) -> list[Tap]:
        site = self._site(generator)
        return [Add(site, value["feature"] - unedited[site])]

    def reference_penalty(self, generator: AbstractGenerator, value: Value, reference: Features) -> dict[str, Tensor]:
        change = value["feature"] - reference[self._site(generator)]
        return {"code": (change / self._deviation(generator, change)).square().mean(dim=(1, 2, 3))}

    def step_scale(self, generator: AbstractGenerator, value: Value) -> Value:
        return {"feature": self._deviation(generator, value["feature"])}

    def _site(self, generator: AbstractGenerator) -> str:
        return self.sites(generator)[0]

    def _deviation(self, generator: AbstractGenerator, like: Tensor) -> Tensor:
        return generator.feature_deviation(self._site(generator)).to(like)[:, None, None]

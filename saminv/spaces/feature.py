"""F<l>: a masked change of the feature that convolution layer l writes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._errors import InputError
from .._types import Features, Latents, Value
from ..generators import AbstractGenerator
from ..sites import Add, Blend, Tap, zero_like_site
from ._base import SPACES, AbstractSpace, SpaceOptions
from .priors import feature_penalty


@SPACES.register("F")
class FeatureSpace(AbstractSpace):
    """Change Δf of one feature map `[B, C, h, w]`, added under a mask (Eq. 3.3 and 3.4).

    In an edit the delta is added first, then the feature is blended with the unedited one under the same mask, so
    that an edit of strength 0 is the reconstruction; the RGB image accumulated so far is frozen likewise.

    Reference: Parmar, 2022, CMU-RI-TR-22-26 (arXiv 2206.08357), sections 3.3 and 3.4.
    """

    spatial = True

    def __init__(self, name: str, options: SpaceOptions) -> None:
        self.name, self.options = name, options
        self.layer = int(name[1:])
        self.feature, self.rank = name, 10.0 + self.layer

    @classmethod
    def names(cls, generator: AbstractGenerator) -> list[str]:
        return list(generator.feature_sites)

    def sites(self, generator: AbstractGenerator) -> tuple[str, ...]:
        site = self._site(generator)
        if site not in generator.sites and self.feature in generator.sites:
            possible = [name for name in generator.feature_sites if f"{name}.block" in generator.sites]
            raise InputError(
                f"{self.name} has no place at tap_point='block': only the last layer of a resolution has, and of the "
                f"last resolution none. Use tap_point='layer', or one of: {', '.join(possible)}."
            )
        return (generator.site(site).name,)

    def _site(self, generator: AbstractGenerator) -> str:
        """Where the delta acts; without a toRGB at each resolution there is no place after it."""
        after = self.options.tap_point == "block" and any(name.endswith(".block") for name in generator.sites)
        return f"{self.feature}.block" if after else self.feature

    def init(self, generator: AbstractGenerator, styles: Tensor, warm: Latents | None = None) -> Value:
        return self._warm(
            warm, {"delta": zero_like_site(generator.site(self._site(generator)), styles.shape[0], styles)}
        )

    def bind(self, generator: AbstractGenerator, value: Value, mask: Tensor | None) -> list[Tap]:
        return [Add(self._site(generator), value["delta"], mask)]

    def shift(self, value: Value, difference: Tensor) -> Value:
        return {"delta": value["delta"] + difference}

    def frozen_sites(self, generator: AbstractGenerator) -> tuple[str, ...]:
        site = self._site(generator)
        skip = generator.site(site).skip
        return (site,) if skip is None or self.options.skip == "published" else (site, skip)

    def edit_taps(
        self, generator: AbstractGenerator, value: Value, mask: Tensor | None, unedited: Features
    ) -> list[Tap]:
        site = self._site(generator)
        feature = unedited[site]
        mask = torch.ones_like(feature[:, :1]) if mask is None else mask
        if self.options.skip == "published":
            return [Blend(site, feature, mask)]
        frozen = [Blend(name, unedited[name], mask) for name in self.frozen_sites(generator)]
        return [Add(site, value["delta"], mask), *frozen]

    def penalty(self, generator: AbstractGenerator, value: Value, start: Value) -> dict[str, Tensor]:
        delta = value["delta"]
        if not self.options.whiten_features:
            return {"feature": feature_penalty(delta, None, self.options.formulation)}
        # By position, so that the weight suits every resolution and an early element, which covers more, counts more.
        penalty = feature_penalty(delta, self._deviation(generator, delta), self.options.formulation)
        return {"feature": penalty / math.prod(delta.shape[2:])}

    def step_scale(self, generator: AbstractGenerator, value: Value) -> Value:
        if not self.options.whiten_features:
            return {}
        return {"delta": self._deviation(generator, value["delta"])[:, None, None]}

    def _deviation(self, generator: AbstractGenerator, like: Tensor) -> Tensor:
        # The generator may have been moved since it was measured.
        return generator.feature_deviation(self._site(generator)).to(like)

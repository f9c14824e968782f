"""W, one style for all layers, and W+, one per layer."""

from __future__ import annotations

from torch import Tensor

from .._types import Latents, Value
from ..generators import AbstractGenerator
from ..sites import Replace, Tap
from ._base import SPACES, AbstractStyleSpace, SpaceOptions
from .priors import deviation, gaussian_prior


@SPACES.register("W+")
class WPlusSpace(AbstractStyleSpace):
    """One w per layer `[B, L, D]`.

    Reference: Abdal et al., 2019, arXiv 1904.03189.
    """

    rank = 1.0
    layered = True

    def __init__(self, name: str, options: SpaceOptions) -> None:
        self.name, self.options = name, options

    @classmethod
    def names(cls, generator: AbstractGenerator) -> list[str]:
        return [] if cls.absence(generator) else ["W+"]

    @classmethod
    def absence(cls, generator: AbstractGenerator) -> str:
        if "z" not in generator.sites:
            return ""
        return "no mapping network makes a w of the noise, but blocks read it as it is: Z+ is their noise"

    def init(self, generator: AbstractGenerator, styles: Tensor, warm: Latents | None = None) -> Value:
        return self._warm(warm, {"w": styles.detach().clone()})

    def bind(self, generator: AbstractGenerator, value: Value, mask: Tensor | None) -> list[Tap]:
        return [Replace("styles", self.styles(generator, value))]

    def styles(self, generator: AbstractGenerator, value: Value) -> Tensor:
        return value["w"]

    def penalty(self, generator: AbstractGenerator, value: Value, start: Value) -> dict[str, Tensor]:
        styles = self.styles(generator, value)
        formulation, label = self.options.formulation, self.options.label
        prior = gaussian_prior(styles, generator.statistics(label), formulation)
        return {"prior": prior.to(styles.dtype), "deviation": deviation(styles, formulation)}

    def step_basis(self, generator: AbstractGenerator, value: Value, principal: bool = False) -> Value:
        """Whitened coordinates: steps of one size are equally likely in all directions."""
        label = self.options.label
        basis = generator.style_axes(label) if principal else generator.statistics(label).factor_w
        return {"w": basis.to(value["w"])}


@SPACES.register("W")
class WSpace(WPlusSpace):
    """One w for all layers `[B, D]`.

    Reference: Karras et al., 2020, arXiv 1912.04958, appendix D.
    """

    rank = 0.0
    layered = False

    @classmethod
    def names(cls, generator: AbstractGenerator) -> list[str]:
        return [] if cls.absence(generator) else ["W"]

    def init(self, generator: AbstractGenerator, styles: Tensor, warm: Latents | None = None) -> Value:
        return self._warm(warm, {"w": styles.detach().mean(dim=1)})

    def styles(self, generator: AbstractGenerator, value: Value) -> Tensor:
        return value["w"][:, None].expand(-1, generator.num_styles, -1)

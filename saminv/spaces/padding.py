"""P: instance-aware padding, the constant input and what surrounds the features of chosen layers."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from .._errors import InputError
from .._types import Latents, Value
from ..generators import AbstractGenerator
from ..sites import Pad, Replace, Tap, zero_like_site
from ._base import SPACES, AbstractSpace, SpaceOptions

LAST = 7
"""The last padding of "P" alone: features up to 32 x 32, as in the paper."""
_NAME = re.compile(r"P(?:(?P<one>\d+)|(?P<first>\d+)-(?P<last>\d+)|\[(?P<list>\d+(?:\s*,\s*\d+)*)\])?")


@SPACES.register("P")
class PaddingSpace(AbstractSpace):
    """Padding coefficients of an image: P0 `[B, C, 4, 4]` for the constant input, a ring `[B, C, 4 (n + 1)]` per layer.

    ``P<l + 1>`` belongs to the convolution of layer l. "P" is P0, P1, P3, P5 and P7, so it has one ring per resolution
    from 4 to 32, as in the paper; "P5" is that one, "P0-9" a range without up-sampling layers, "P[0,2,5]" any choice.
    It starts at the generator's own padding, which is zero, and constant. It acts on the whole border, so τ never gives
    it segments; an edit leaves it as it is.

    Reference:
        Bai et al., 2022, arXiv 2203.11105, section 3.
    """

    rank = 50.0

    def __init__(self, name: str, options: SpaceOptions) -> None:
        self.name, self.options = name, options

    @classmethod
    def names(cls, generator: AbstractGenerator) -> list[str]:
        found = padding_sites(generator)
        return ["P", *found] if found else []

    @classmethod
    def absence(cls, generator: AbstractGenerator) -> str:
        return "" if padding_sites(generator) else "no layer takes padding of an image's own"

    @classmethod
    def offers(cls, name: str, generator: AbstractGenerator) -> bool:
        return bool(padding_sites(generator)) and bool(_chosen(name, generator))

    def sites(self, generator: AbstractGenerator) -> tuple[str, ...]:
        return _chosen(self.name, generator)

    @torch.no_grad()
    def init(self, generator: AbstractGenerator, styles: Tensor, warm: Latents | None = None) -> Value:
        start = {name: zero_like_site(generator.site(name), len(styles), styles) for name in self.sites(generator)}
        if CONSTANT in start:
            found = generator.synthesis(styles, until=CONSTANT)
            assert isinstance(found, dict)
            start[CONSTANT] = found[CONSTANT].clone()
        return self._warm(warm, start)

    def bind(self, generator: AbstractGenerator, value: Value, mask: Tensor | None) -> list[Tap]:
        return [Replace(name, x) if name == CONSTANT else Pad(name, x) for name, x in value.items()]

    def penalty(self, generator: AbstractGenerator, value: Value, start: Value) -> dict[str, Tensor]:
        changes = [
            ((value[name] - start[name]) / scale).square().flatten(1).mean(dim=1)
            for name, scale in self._scales(generator, value).items()
        ]
        return {"padding": torch.stack(changes).sum(dim=0)}

    def step_scale(self, generator: AbstractGenerator, value: Value) -> Value:
        return self._scales(generator, value)

    def _scales(self, generator: AbstractGenerator, like: Value) -> Value:
        """Standard deviation of what each tensor replaces or surrounds, by channel, broadcastable to it."""
        found = {name: generator.padding_deviation(name).to(tensor) for name, tensor in like.items()}
        return {name: scale.reshape(-1, *[1] * (like[name].dim() - 2)) for name, scale in found.items()}


CONSTANT = "P0"


def padding_sites(generator: AbstractGenerator) -> tuple[str, ...]:
    """Names of the padding sites of a generator, the constant input first."""
    return tuple(name for name, site in generator.sites.items() if site.kind == "padding")


def _chosen(name: str, generator: AbstractGenerator) -> tuple[str, ...]:
    """The sites that a name such as "P", "P5", "P0-7" or "P[0,1,3]" stands for.

    Raises:
        InputError: If it is no such name, or the generator lacks one of them.
    """
    offered = padding_sites(generator)
    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(f"{name!r} names no padding; write 'P', 'P5', 'P0-7' or 'P[0,1,3]'.")
    if match["one"] is not None:
        numbers: Sequence[int] = [int(match["one"])]
    elif match["list"] is not None:
        numbers = [int(part) for part in match["list"].split(",")]
    else:
        first, last = (int(match[key]) if match[key] else default for key, default in (("first", 0), ("last", LAST)))
        there = _without_upsampling(offered)
        if match["last"] and not (first <= last and {first, last} <= set(there)):
            raise InputError(f"{name!r} is no range of paddings; its ends must be among {', '.join(map(str, there))}.")
        numbers = [number for number in there if first <= number <= last]
    missing = [f"P{number}" for number in numbers if f"P{number}" not in offered]
    if missing or len(set(numbers)) != len(numbers):
        problem = f"This generator has no {', '.join(missing)}" if missing else f"{name!r} names a padding twice"
        raise InputError(f"{problem}. There are: {', '.join(offered) or 'none'}.")
    return tuple(f"P{number}" for number in sorted(numbers))


def _without_upsampling(offered: Sequence[str]) -> list[int]:
    """Numbers of the constant and of the layers that keep the resolution: 0, and all odd ones."""
    return [number for number in (int(name[1:]) for name in offered) if number == 0 or number % 2]

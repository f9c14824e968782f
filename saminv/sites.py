"""Sites, where a generator lets itself be touched, and taps, what is done there.

Taps are data, not closures: a generator (or a fused kernel) interprets them, so a latent space never needs to know how
a generator is built and a step can be captured whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, Union

import torch
from torch import Tensor

from ._errors import InputError

Frame = tuple[float, float, float, float]
Beyond = Literal["zero", "edge"]
Kind = Literal["styles", "latent", "class", "feature", "rgb", "noise", "padding", "weight"]
STYLE_KINDS: tuple[Kind, ...] = ("styles", "latent", "class")
"""Kinds of the sites of styles, and of their parts."""


@dataclass(frozen=True)
class Site:
    """A tensor inside a generator that taps can change.

    Attributes:
        name: Unique in the generator: ``"styles"``, ``"F4"``, ``"F4.block"``, ``"rgb4"``, ``"noise4"`` ...
        kind: What the tensor is.
        shape: Its shape without the batch axis.
        frame: Where the image lies in this grid, as fractions (left, top, right, bottom). (0, 0, 1, 1) where grid and
            image coincide; a crop or a margin makes it smaller.
        beyond: What a mask is in the rest of the grid: zero, or what it is at the edge of the image, where later layers
            read the rest too.
        skip: For a feature, the site of the RGB image accumulated before it, if the generator has one. An edit that
            freezes the feature freezes that image as well.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    frame: Frame = (0.0, 0.0, 1.0, 1.0)
    skip: str | None = None
    beyond: Beyond = "zero"


@dataclass(frozen=True)
class Add:
    """``x + mask * delta``. ``delta`` `[B, C, h, w]`, ``mask`` `[B, 1, h, w]` in [0, 1] or None."""

    site: str
    delta: Tensor
    mask: Tensor | None = None

    def apply(self, x: Tensor) -> Tensor:
        """The changed tensor in the type of ``x``, which stays as it is."""
        return (x + self.delta if self.mask is None else x + self.delta * self.mask).to(x.dtype)


@dataclass(frozen=True)
class Blend:
    """``(1 - mask) * x + mask * value``, written so that a zero mask changes no bit."""

    site: str
    value: Tensor
    mask: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """The changed tensor in the type of ``x``, which stays as it is."""
        return (x + (self.value - x) * self.mask).to(x.dtype)


@dataclass(frozen=True)
class Replace:
    """``value`` takes the place of the tensor at the site."""

    site: str
    value: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """The value in the type of ``x``."""
        return self.value.to(x.dtype)


@dataclass(frozen=True)
class Pad:
    """Instance-aware padding: ``coefficients`` `[B, C, 4 (n + 1)]` fill the border ring of an `n` x `n` map.

    Their order is that of :mod:`saminv.ops.instance_padding`.
    """

    site: str
    coefficients: Tensor


Tap = Union[Add, Blend, Replace, Pad]


def take_row(tap: Tap, row: int) -> Tap:
    """The tap of image ``row`` alone; tensors that all images share stay as they are."""
    tensors = {item.name: getattr(tap, item.name) for item in fields(tap) if item.name != "site"}
    own = {name: x[row : row + 1] for name, x in tensors.items() if x is not None and len(x) > 1}
    return replace(tap, **own)


class Taps:
    """Taps grouped by site, in the order given."""

    def __init__(self, taps: Iterable[Tap] = (), sites: Mapping[str, Site] | None = None) -> None:
        self._by_site: dict[str, list[Tap]] = {}
        for tap in taps:
            if sites is not None and tap.site not in sites:
                raise InputError(f"This generator has no site {tap.site!r}. It has: {', '.join(sites)}.")
            self._by_site.setdefault(tap.site, []).append(tap)

    def __contains__(self, site: str) -> bool:
        return site in self._by_site

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_site)

    def at(self, site: str) -> list[Tap]:
        """The taps of one site."""
        return self._by_site.get(site, [])

    def without(self, site: str, row: int) -> Taps:
        """What image ``row`` alone has at all other sites."""
        kept = Taps()
        kept._by_site = {
            name: [take_row(tap, row) for tap in taps] for name, taps in self._by_site.items() if name != site
        }
        return kept

    def apply(self, site: str, x: Tensor) -> Tensor:
        """Return ``x`` with the site's taps applied in order."""
        for tap in self._by_site.get(site, ()):
            if isinstance(tap, Pad):
                raise InputError(f"Padding taps act inside a convolution, not at the feature site {site!r}.")
            x = tap.apply(x)
        return x

    def sum_at(self, site: str) -> Add | None:
        """The only tap of a site if it is a sum, which a fused layer can do itself; None otherwise."""
        found = self._by_site.get(site, [])
        return found[0] if len(found) == 1 and isinstance(found[0], Add) else None

    def ring(self, site: str) -> Tensor | None:
        """Coefficients of the padding site, None where it is zero as usual; the last tap counts.

        Raises:
            InputError: If a tap of another kind is there.
        """
        found = None
        for tap in self._by_site.get(site, ()):
            if not isinstance(tap, Pad):
                raise InputError(f"{type(tap).__name__} does not act at the padding site {site!r}; use Pad.")
            found = tap.coefficients
        return found


def zero_like_site(site: Site, batch: int, like: Tensor) -> Tensor:
    """Zeros of a site's shape `[B, *shape]` with the dtype and device of ``like``; features are channels-last."""
    zeros = torch.zeros(batch, *site.shape, dtype=like.dtype, device=like.device)
    return zeros.contiguous(memory_format=torch.channels_last) if zeros.dim() == 4 else zeros

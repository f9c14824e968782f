"""A problem: a frozen generator, target images, spaces under regions, an objective."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from .._types import Features, Latents, map_latents
from ..generators._base import IMAGE, AbstractGenerator
from ..regions import Regions
from ..sites import Tap
from ..spaces._base import AbstractSpace, AbstractStyleSpace, space_mask, style_base
from .objective import Objective, Targets
from .precision import FULL, Precision


@dataclass(frozen=True)
class Evaluation:
    """One look at a problem, all per image.

    Attributes:
        loss: Total `[B]`.
        parts: Unweighted losses and penalties by name, each `[B]`.
        gradients: Of the sum of losses with respect to the latents; None where they were not asked for. Spaces that
            are idle (:attr:`Problem.idle`) have none.
        image: What the latents render to `[B, 3, H, W]`.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    gradients: Latents | None
    image: Tensor


@dataclass(frozen=True)
class Problem:
    """B independent inversions that share a forward pass.

    Attributes:
        generator: Frozen.
        target: `[B, 3, H, W]` in [-1, 1] at the generator's image size.
        styles: Start styles `[B, L, D]`.
        spaces: Ordered by rank, exactly one of them a style space.
        regions: Which pixel belongs to which space.
        objective: What is minimised.
        noise: Noise mode of the synthesis; "const" keeps the objective deterministic.
        warm: Values to start from by space, instead of the base image.
        frozen: Spaces that stay where they start.
        encode: What an encoder says of pictures under regions: styles `[B, L, D]`. The part "domain" of the objective
            compares the styles with it.

    Raises:
        InputError: If these do not fit together.
    """

    generator: AbstractGenerator
    target: Tensor
    styles: Tensor
    spaces: tuple[AbstractSpace, ...]
    regions: Regions
    objective: Objective
    noise: str = "const"
    warm: Latents | None = None
    frozen: frozenset[str] = frozenset()
    encode: Callable[[Tensor, Regions], Tensor] | None = None
    _prepared: Targets | None = field(default=None, repr=False)
    _start: Latents | None = field(default=None, repr=False)
    _touched: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._check()
        if self._prepared is None:
            object.__setattr__(self, "_prepared", self.objective.prepare(self.target))
        if self._start is None:
            object.__setattr__(self, "_start", self._initial())
        touched = self._used()
        object.__setattr__(self, "_touched", touched if self._touched is None else self._touched | touched)

    def __len__(self) -> int:
        return self.target.shape[0]

    def _check(self) -> None:
        """Raise ``InputError`` for parts that do not fit together."""
        height, width = self.generator.image_size
        slots = (self.generator.num_styles, self.generator.style_dim)
        if self.target.dim() != 4 or tuple(self.target.shape[1:]) != (3, height, width):
            raise InputError(f"The target must be [B, 3, {height}, {width}], got {list(self.target.shape)}.")
        if tuple(self.styles.shape) != (len(self), *slots):
            raise InputError(f"styles must be {[len(self), *slots]}, got {list(self.styles.shape)}.")
        if sum(isinstance(space, AbstractStyleSpace) for space in self.spaces) != 1:
            raise InputError("A problem needs exactly one style space; resolve_spaces adds one where there is none.")
        if (len(self.regions), *self.regions.size) != (len(self), height, width):
            raise InputError(
                f"The regions are for {len(self.regions)} images of {self.regions.size}, but there are {len(self)} of "
                f"{(height, width)} (height, width). GivenRegions resizes label maps."
            )
        names = [space.name for space in self.spaces]
        missing = [s.name for s in self.spaces if s.spatial and s.name not in self.regions.spaces]
        unknown = [name for name in self.regions.spaces if name not in names]
        if missing or unknown:
            raise InputError(
                f"The regions are of the spaces {', '.join(self.regions.spaces)}, the problem has {', '.join(names)}; "
                f"they differ at {', '.join(missing + unknown)}."
            )

    def _initial(self) -> Latents:
        return {space.name: space.init(self.generator, self.styles, self.warm) for space in self.spaces}

    def _used(self) -> Tensor:
        """`[B, K]`, True where the k-th space is not spatial, has a pixel in the image, or a warm start of its own."""
        used = torch.ones(len(self), len(self.spaces), dtype=torch.bool)
        for k, space in enumerate(self.spaces):
            if space.spatial:
                place = self.regions.spaces.index(space.name)
                used[:, k] = (self.regions.labels == place).flatten(1).any(dim=1).cpu() | self._warmed(space)
        return used

    def _warmed(self, space: AbstractSpace) -> Tensor:
        """`[B]`, True where the space starts elsewhere than at the base image."""
        warmed = torch.zeros(len(self), dtype=torch.bool)
        if self.warm is None or space.name not in self.warm:
            return warmed
        base = space.init(self.generator, self.styles, {})
        for key, tensor in self.warm[space.name].items():
            warmed |= (tensor != base[key]).flatten(1).any(dim=1).cpu()
        return warmed

    @functools.cached_property
    def idle(self) -> frozenset[str]:
        """Spaces that no pixel of any image belongs to, nor ever did since its start.

        Their values are those of the start and their gradients are zero, so a step passes them by.
        """
        assert self._touched is not None
        return frozenset(space.name for space, used in zip(self.spaces, self._touched.any(dim=0).tolist()) if not used)

    def select(self, rows: Tensor) -> Problem:
        """The problem of the images ``rows`` `[N]`."""
        assert self._prepared is not None and self._start is not None and self._touched is not None
        return replace(
            self,
            target=self.target[rows],
            styles=self.styles[rows],
            regions=self.regions.select(rows),
            warm=None if self.warm is None else map_latents(lambda tensor: tensor[rows], self.warm),
            _prepared=self._prepared.select(rows),
            _start=map_latents(lambda tensor: tensor[rows], self._start),
            _touched=self._touched[rows.cpu()],
        )

    def join(self, other: Problem) -> Problem:
        """These images and then the other ones, which have the same generator, spaces and objective.

        Raises:
            InputError: If they have not.
        """
        same = self.generator is other.generator and self.objective == other.objective and self.noise == other.noise
        if not same or self.spaces != other.spaces or (self.warm is None) != (other.warm is None):
            raise InputError("Only problems of one generator with the same spaces and objective can share a batch.")
        assert self._prepared is not None and other._prepared is not None
        assert self._start is not None and other._start is not None
        assert self._touched is not None and other._touched is not None
        warm = None if self.warm is None or other.warm is None else map_latents(_cat, self.warm, other.warm)
        return replace(
            self,
            target=torch.cat([self.target, other.target]),
            styles=torch.cat([self.styles, other.styles]),
            regions=self.regions.join(other.regions),
            warm=warm,
            _prepared=self._prepared.join(other._prepared),
            _start=map_latents(_cat, self._start, other._start),
            _touched=torch.cat([self._touched, other._touched]),
        )

    @property
    def prepared(self) -> Targets:
        """Targets as the objective compares them."""
        assert self._prepared is not None
        return self._prepared

    def start(self) -> Latents:
        """A fresh copy of the start of every space."""
        assert self._start is not None
        return map_latents(lambda tensor: tensor.clone(), self._start)

    def with_regions(self, regions: Regions) -> Problem:
        """The same problem under other regions."""
        return replace(self, regions=regions)

    def taps(self, y: Latents, twins: bool = True) -> list[Tap]:
        """Taps of the spaces in ``y``, with or without those that have a twin."""
        return [
            tap
            for space in self.spaces
            if space.name in y and (twins or not space.twin)
            for tap in space.bind(self.generator, y[space.name], space_mask(space, self.generator, self.regions))
        ]

    def render(self, y: Latents, dtype: torch.dtype | None = None) -> Tensor:
        """Image `[B, 3, H, W]` of the latents (Eq. 3.3 and 3.4), by way of features of a type."""
        image = self._synthesis(self.taps(y), dtype)
        assert isinstance(image, Tensor)
        return image

    def _synthesis(self, taps: list[Tap], dtype: torch.dtype | None, **more: Any) -> Tensor | Features:
        # Generators that know no other type need not know the argument.
        more = more if dtype is None else {**more, "dtype": dtype}
        return self.generator.synthesis(self.styles, taps, noise=self.noise, **more)

    def penalties(self, y: Latents) -> dict[str, Tensor]:
        """Unweighted regularisers by name, each `[B]`; spaces that share a name are added."""
        found: dict[str, Tensor] = {}
        for space in self.spaces:
            for name, penalty in self._penalty(space, y).items():
                found[name] = found[name] + penalty if name in found else penalty
        return found

    def _penalty(self, space: AbstractSpace, y: Latents) -> dict[str, Tensor]:
        assert self._start is not None
        if space.name not in y:
            return self._resting[space.name]
        return space.penalty(self.generator, y[space.name], self._start[space.name])

    @functools.cached_property
    def _resting(self) -> dict[str, dict[str, Tensor]]:
        """Regularisers of the idle spaces, which stay as they are."""
        assert self._start is not None
        start = self._start
        idle = [space for space in self.spaces if space.name in self.idle]
        return {space.name: space.penalty(self.generator, start[space.name], start[space.name]) for space in idle}

    def loss(self, y: Latents) -> tuple[Tensor, dict[str, Tensor]]:
        """Total `[B]` and its unweighted parts `[B]` by name."""
        evaluation = self._look(y)
        return evaluation.loss, evaluation.parts

    def _look(self, y: Latents, dtype: torch.dtype | None = None) -> Evaluation:
        image = self.render(y, dtype)
        parts = self.objective.reconstruction(image, self.prepared, dtype) | self.penalties(y)
        parts |= self._twin(y, dtype) | self._locality(y, dtype) | self._domain(y, image)
        return Evaluation(self.objective.total(parts), parts, None, image)

    def _twin(self, y: Latents, dtype: torch.dtype | None) -> dict[str, Tensor]:
        """What the picture without the spaces that have a twin is worth, and how far these are from it."""
        twins = [space for space in self.spaces if space.twin]
        if not twins:
            return {}
        sites = dict.fromkeys(site for space in twins for site in space.reference_sites(self.generator))
        taps = self.taps(y, twins=False)
        found = self._synthesis(taps, dtype, until=[*sites, IMAGE])
        assert isinstance(found, dict)
        losses = self.objective.reconstruction(found[IMAGE], self.prepared, dtype)
        parts = {"twin": self.objective.total(losses)}
        for space in twins:
            parts |= space.reference_penalty(self.generator, y[space.name], found)
        return parts

    @functools.cached_property
    def _anchors(self) -> dict[str, tuple[Tensor, Targets]]:
        """By space, styles whose pictures it had better leave as they are, and these pictures."""
        if not self.objective.weights.get("locality"):
            return {}
        assert self._start is not None
        base = style_base(self.spaces)
        pivot = base.styles(self.generator, self._start[base.name])
        found = {}
        with torch.no_grad():
            for space in self.spaces:
                styles = space.anchors(self.generator, pivot)
                if styles is not None:
                    image = self.generator.synthesis(styles, noise=self.noise)
                    assert isinstance(image, Tensor)
                    found[space.name] = styles, self.objective.prepare(image)
        return found

    def _locality(self, y: Latents, dtype: torch.dtype | None) -> dict[str, Tensor]:
        """How far spaces move the pictures that they had better leave as they are."""
        parts: dict[str, Tensor] = {}
        for space in self.spaces:
            if space.name not in self._anchors:
                continue
            styles, targets = self._anchors[space.name]
            more: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
            taps = space.bind(self.generator, y[space.name], None)
            image = self.generator.synthesis(styles, taps, noise=self.noise, **more)
            assert isinstance(image, Tensor)
            moved = self.objective.total(self.objective.reconstruction(image, targets, dtype))
            parts["locality"] = parts["locality"] + moved if "locality" in parts else moved
        return parts

    def _domain(self, y: Latents, image: Tensor) -> dict[str, Tensor]:
        """How far the styles are from what the encoder says of their picture."""
        if self.encode is None or not self.objective.weights.get("domain"):
            return {}
        assert self._start is not None
        base = style_base(self.spaces)
        styles = base.styles(self.generator, y.get(base.name, self._start[base.name]))
        return {"domain": (styles - self.encode(image, self.regions)).square().mean(dim=(1, 2))}

    def evaluate(self, y: Latents, precision: Precision = FULL) -> Evaluation:
        """Loss, parts, image and the gradient of every latent tensor that is neither idle nor frozen.

        Args:
            y: Latents.
            precision: In which numbers. All that is returned has the type of the latents.
        """
        y = {name: value for name, value in y.items() if name not in self.idle}
        moving = {name: value for name, value in y.items() if name not in self.frozen}
        moving = map_latents(lambda tensor: tensor.detach().requires_grad_(), moving)
        look = self._look({**y, **moving}, precision.features)
        scale = precision.gradient_scale(self.target[0].numel())
        leaves = [tensor for value in moving.values() for tensor in value.values()]
        total = look.loss.sum() * scale if scale != 1 else look.loss.sum()
        # Frozen styles may have the whole picture for a while; then nothing moves.
        by_leaf = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True) if leaves else ()
        found = iter(by_leaf)
        gradients = map_latents(lambda _: next(found) / scale if scale != 1 else next(found), moving)
        parts = {name: value.detach() for name, value in look.parts.items()}
        return Evaluation(look.loss.detach(), parts, gradients, look.image.detach())


def _cat(first: Tensor, second: Tensor) -> Tensor:
    return torch.cat([first, second])

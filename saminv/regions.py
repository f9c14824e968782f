"""Regions: which pixel of an image belongs to which latent space, and the masks that a generator's sites see.

Mask resizing is one function, :func:`resize_mask`, for every generator, space and formulation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from ._errors import InputError
from .sites import Beyond, Frame, Site

Formulation = Literal["paper", "published"]
WHOLE: Frame = (0.0, 0.0, 1.0, 1.0)

# Kernel values below this are rounding errors of exact zeros; dropping them keeps a resize to the same size exact.
_NEGLIGIBLE = 1e-12
# Slack, in pixels, when a frame's edge falls on a pixel's edge.
_SLACK = 1e-6


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp_min(0)


def _lanczos3(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), 0.0)


_KERNELS: dict[str, Callable[[Tensor], Tensor]] = {"paper": _triangle, "published": _lanczos3}


def _axis_weights(n_in: int, n_out: int, start: float, stop: float, formulation: Formulation, beyond: Beyond) -> Tensor:
    """Weights `[n_out, n_in]` in float64 that resample one axis of an image lying at [start, stop] of the grid.

    The pixels of the grid outside the image take part in the normalisation. Then they drop out, as zeros, or go to the
    nearest pixel of the image. Pixels of the image outside the grid do not count.
    """
    grid = n_in / (stop - start)
    before, after = start * grid, (1 - stop) * grid
    first, last = math.ceil(-before - 0.5 - _SLACK), math.floor(n_in + after - 0.5 + _SLACK)
    if last < first:
        raise InputError(f"The frame leaves less than one of {n_in} mask pixels in the grid; give a larger part of it.")
    pixels = torch.arange(first, last + 1, dtype=torch.float64) + 0.5
    scale = grid / n_out
    centres = (torch.arange(n_out, dtype=torch.float64) + 0.5) * scale - before
    weights = _KERNELS[formulation]((pixels - centres[:, None]) / max(scale, 1.0))
    weights = torch.where(weights.abs() < _NEGLIGIBLE, 0.0, weights)
    weights = weights / weights.sum(1, keepdim=True)
    inside = torch.zeros(n_out, n_in, dtype=torch.float64)
    low, high = max(first, 0), min(last + 1, n_in)
    inside[:, low:high] = weights[:, low - first : high - first]
    if beyond == "edge":
        inside[:, low] += weights[:, : low - first].sum(1)
        inside[:, high - 1] += weights[:, high - first :].sum(1)
    return inside


def resize_mask(
    mask: Tensor,
    size: tuple[int, int],
    frame: Frame = WHOLE,
    formulation: Formulation = "paper",
    beyond: Beyond = "zero",
) -> Tensor:
    """Place a mask in a generator's grid and resample it to the size of a feature map.

    Args:
        mask: `[B, 1, H, W]`, bool or float in [0, 1], at the image's resolution.
        size: Height and width `(h, w)` of the result; it may be larger than the mask.
        frame: Where the image lies in the grid, as fractions (left, top, right, bottom).
        formulation: ``"paper"``: a triangle filter (bilinear, anti-aliased), under which masks that sum to one still
            do. ``"published"``: a Lanczos filter of three lobes, clipped to [0, max(mask)] per image, as in the
            published code.
        beyond: What the rest of the grid is: ``"zero"``, or ``"edge"`` for the nearest pixel of the image.

    Returns:
        `[B, 1, h, w]` in [0, 1], of the mask's dtype (float32 for bool). All ones stay ones, zeros stay zeros, and a
        mask of the right size is returned unchanged.

    Raises:
        InputError: If the mask has another shape, or size, frame, formulation or what lies beyond are impossible.

    Reference:
        Parmar, "Spatially-Adaptive Multilayer GAN Inversion and Editing", 2022, CMU-RI-TR-22-26 (arXiv:2206.08357),
        below Eq. 3.3.
    """
    _check_resize(mask, size, frame, formulation)
    if beyond not in get_args(Beyond):
        raise InputError(f"beyond={beyond!r} is none of {', '.join(get_args(Beyond))}.")
    dtype = mask.dtype if mask.is_floating_point() else torch.float32
    height, width = mask.shape[-2:]
    if tuple(size) == (height, width) and tuple(frame) == WHOLE:
        return mask.to(dtype)
    left, top, right, bottom = frame
    rows = _axis_weights(height, size[0], top, bottom, formulation, beyond).to(mask.device)
    columns = _axis_weights(width, size[1], left, right, formulation, beyond).to(mask.device)
    precise = mask.double()
    resized = rows @ (precise @ columns.T)
    highest = precise.amax((1, 2, 3), keepdim=True)
    resized = resized.clamp_min(0).minimum(highest)
    # Through float32, so that weights that sum to one up to the last bit of float64 leave ones exactly one.
    return resized.float().to(dtype)


def _check_resize(mask: Tensor, size: tuple[int, int], frame: Frame, formulation: str) -> None:
    if mask.dim() != 4 or mask.shape[1] != 1 or 0 in mask.shape:
        raise InputError(f"A mask must be [B, 1, H, W] and not empty, not {list(mask.shape)}.")
    if len(size) != 2 or min(size) < 1:
        raise InputError(f"A mask cannot be resized to {tuple(size)}; give a height and a width of at least 1.")
    left, top, right, bottom = frame
    if not (left < right and top < bottom and left < 1 and top < 1 and right > 0 and bottom > 0):
        raise InputError(f"Frame {frame} is (left, top, right, bottom) in fractions of the grid and must overlap it.")
    _check_formulation(formulation)


def _check_formulation(formulation: str) -> None:
    if formulation not in get_args(Formulation):
        raise InputError(f"Unknown mask formulation {formulation!r}. Known: {', '.join(get_args(Formulation))}.")


@dataclass(frozen=True, eq=False)
class Regions:
    """A partition of every image of a batch among latent spaces.

    Attributes:
        labels: `[B, H, W]` int64, the index into ``spaces`` of each pixel. Not to be changed in place: masks are
            cached.
        spaces: Names ordered by editability, the style base first, for example ``("W+", "F4", "F6")``.
        formulation: How masks are resized, see :func:`resize_mask`.
        dtype: Of the masks.
    """

    labels: Tensor
    spaces: tuple[str, ...]
    formulation: Formulation = "paper"
    dtype: torch.dtype = torch.float32
    _cache: dict[tuple, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_formulation(self.formulation)
        if isinstance(self.spaces, str) or not self.spaces or len(set(self.spaces)) != len(self.spaces):
            raise InputError(f"Regions need a list of distinct spaces, at least one; got {self.spaces!r}.")
        object.__setattr__(self, "spaces", tuple(self.spaces))
        if self.labels.dtype != torch.int64 or self.labels.dim() != 3 or self.labels.numel() == 0:
            kind = f"{str(self.labels.dtype).removeprefix('torch.')} {list(self.labels.shape)}"
            raise InputError(f"Region labels must be int64 [B, H, W] and not empty, not {kind}.")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.spaces):
            raise InputError(
                f"Region labels must index the {len(self.spaces)} spaces {', '.join(self.spaces)}, so lie in "
                f"0..{len(self.spaces) - 1}; they lie in {low}..{high}."
            )

    @classmethod
    def uniform(
        cls,
        batch: int,
        size: tuple[int, int],
        spaces: Sequence[str],
        space: str,
        *,
        formulation: Formulation = "paper",
        device: torch.device | str | None = None,
    ) -> Regions:
        """Regions with every pixel of ``batch`` images of ``size`` (height, width) in one space.

        Raises:
            InputError: If ``space`` is not among ``spaces``.
        """
        labels = torch.full((batch, *size), _index(space, spaces), dtype=torch.int64, device=device)
        return cls(labels, tuple(spaces), formulation)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Regions):
            return NotImplemented
        return (
            (self.spaces, self.formulation, self.dtype) == (other.spaces, other.formulation, other.dtype)
            and self.labels.device == other.labels.device
            and torch.equal(self.labels, other.labels)
        )

    def __len__(self) -> int:
        return self.labels.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the label map."""
        return self.labels.shape[1], self.labels.shape[2]

    def full(self, space: str) -> Tensor:
        """Mask of one space at the image's resolution, bool `[B, 1, H, W]`."""
        return (self.labels == _index(space, self.spaces))[:, None]

    def share(self, space: str) -> Tensor:
        """Part of each image's area that lies in one space, `[B]` in [0, 1]."""
        return self.full(space).to(self.dtype).mean((1, 2, 3))

    def mask(self, space: str, site: Site) -> Tensor:
        """Mask of one space at the grid of a generator's site, `[B, 1, h, w]` in [0, 1]; cached.

        Raises:
            InputError: If the space is not one of these, or the site is not a feature grid.
        """
        if len(site.shape) != 3:
            raise InputError(f"Site {site.name!r} has shape {site.shape}; only [C, h, w] grids take a mask.")
        key = (space, site.shape[-2:], site.frame, site.beyond)
        if key not in self._cache:
            # A tensor made in inference mode could not take part in a later backward pass.
            with torch.inference_mode(False), torch.no_grad():
                full = self.full(space).to(self.dtype)
                self._cache[key] = resize_mask(full, key[1], site.frame, self.formulation, site.beyond)
        return self._cache[key]

    def masks_dict(self) -> dict[str, Tensor]:
        """All masks at the image's resolution by space, bool `[B, 1, H, W]`."""
        return {space: self.full(space) for space in self.spaces}

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Regions:
        """The same regions on another device, or with masks of another dtype."""
        return replace(self, labels=self.labels.to(device=device), dtype=dtype or self.dtype)

    def select(self, indices: Tensor | Sequence[int] | int) -> Regions:
        """The regions of some images of the batch: positions or a bool `[B]`."""
        rows = torch.as_tensor(indices, device=self.labels.device).reshape(-1)
        return self.with_labels(self.labels[rows if rows.dtype == torch.bool else rows.long()])

    def join(self, other: Regions) -> Regions:
        """The regions of these images and then of the other ones.

        Raises:
            InputError: If they are of other spaces, of another size, or resized in another way.
        """
        if (self.spaces, self.formulation, self.size) != (other.spaces, other.formulation, other.size):
            both = f"{self.spaces} {self.size} and {other.spaces} {other.size}"
            raise InputError(f"Only regions of the same spaces and size can be joined, not {both}.")
        return self.with_labels(torch.cat([self.labels, other.labels]))

    def with_labels(self, labels: Tensor) -> Regions:
        """The same spaces with other labels `[B, H, W]`."""
        return replace(self, labels=labels)


def _index(space: str, spaces: Sequence[str]) -> int:
    if space not in spaces:
        raise InputError(f"Space {space!r} has no region here. The regions know: {', '.join(spaces)}.")
    return tuple(spaces).index(space)

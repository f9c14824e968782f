"""Edits of one segment only: what belongs to others is frozen, by blending features.

Outside of the segment the features of the layers, and the RGB images between them, stay what they are without the
edit. So the generator itself finds the transition, and the picture outside is the unedited one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._errors import InputError
from .._types import Features
from ..generators import AbstractGenerator
from ..regions import Regions, resize_mask
from ..sites import Blend, Tap
from ..solution import Solution

FROZEN_FROM = 32
"""Least side of the features that are frozen: in smaller ones an object and its surroundings share most elements."""
Within = str | int | Tensor | Sequence[str | int]
"""Where an edit acts: names of classes or ids of segments, one or several, or a mask."""
MARGIN = 0.015
"""How far the edit reaches beyond the segment, as a part of the shorter side: shadows and soft borders."""


def frozen_sites(generator: AbstractGenerator) -> list[str]:
    """Sites at which others are frozen: features and RGB images."""
    features = [name for name in generator.feature_sites if min(generator.site(name).shape[1:]) >= FROZEN_FROM]
    return features + [name for name, site in generator.sites.items() if site.kind == "rgb"]


def freeze(generator: AbstractGenerator, inside: Tensor, unedited: Features, regions: Regions) -> list[Tap]:
    """Taps that keep everything outside of ``inside`` bool `[B, 1, H, W]` at its ``unedited`` value."""
    outside = (~inside).to(regions.dtype)
    taps: list[Tap] = []
    for name in frozen_sites(generator):
        site = generator.site(name)
        mask = resize_mask(outside, (site.shape[1], site.shape[2]), site.frame, regions.formulation, site.beyond)
        taps.append(Blend(name, unedited[name], mask))
    return taps


def segment_mask(solution: Solution, segment: Within) -> Tensor:
    """Pixels of a segment or of several, bool `[B, 1, H, W]`.

    Args:
        solution: Of B images.
        segment: Names of classes or ids of segments, one or several; or a mask `[B, 1, H, W]` or `[1, 1, H, W]`.

    Raises:
        InputError: If no image has such a segment, or the mask does not fit.
    """
    batch, _, height, width = solution.image.shape
    if isinstance(segment, Tensor):
        if tuple(segment.shape) not in {(batch, 1, height, width), (1, 1, height, width)}:
            raise InputError(f"within is a mask {list(segment.shape)}; {[batch, 1, height, width]} is needed.")
        return (segment > 0.5).expand(batch, -1, -1, -1).to(solution.image.device)
    if solution.segments is None:
        raise InputError("This solution has no segments; give a mask as within=, or invert with a segmenter.")
    several = isinstance(segment, Iterable) and not isinstance(segment, str)
    wanted: list[Any] = list(segment) if several else [segment]  # type: ignore[arg-type]
    if not wanted or not all(isinstance(one, (str, int)) for one in wanted):
        raise InputError(f"within is {segment!r}; it must be names or ids of segments, at least one, or a mask.")
    found = torch.zeros_like(solution.segments, dtype=torch.bool)
    for one in wanted:
        ids = torch.tensor(ids_of(solution, one), dtype=torch.int64, device=found.device)
        part = torch.isin(solution.segments, ids)
        if not bool(part.any()):
            names = sorted(set(_names(solution).values()))
            known = names or [str(label) for label in solution.segments.unique().tolist()]
            raise InputError(f"No image has a segment {one!r}. There are: {', '.join(known)}.")
        found |= part
    return found[:, None]


def ids_of(solution: Solution, segment: str | int) -> list[int]:
    """Ids of the segments that a class name or an id stands for."""
    if isinstance(segment, int) or segment.isdigit():
        return [int(segment)]
    return [label for label, name in _names(solution).items() if name.casefold() == segment.casefold()]


def _names(solution: Solution) -> dict[int, str]:
    return {int(label): str(name) for label, name in solution.provenance.get("segment_names", {}).items()}


def widened(mask: Tensor, margin: float = MARGIN) -> Tensor:
    """A mask bool `[B, 1, H, W]` with its border moved outwards by a part of the shorter side."""
    radius = round(margin * min(mask.shape[-2:]))
    return F.max_pool2d(mask.float(), 2 * radius + 1, 1, radius) > 0.5

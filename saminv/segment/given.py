"""Invertibility maps and regions that the user gives instead of measured or predicted ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .._errors import InputError
from ..regions import Formulation, Regions
from ._base import AbstractInvertibility, check_image
from .labels import LabelSource, check_fit, fit_labels, label_tensor, load_array, load_npz

MapSource = Mapping[str, Tensor | np.ndarray] | str | PathLike


@dataclass(frozen=True, eq=False)
class GivenInvertibility(AbstractInvertibility):
    """Error maps that are known beforehand; the image itself is not looked at.

    Attributes:
        maps: By space, `[H, W]`, `[B, H, W]` or `[B, 1, H, W]`, finite and >= 0, or an .npz file whose arrays have the
            spaces' names. One map serves a whole batch. Maps of another size than the image are resized bilinearly.

    Raises:
        InputError: If there are no maps, one has another shape or impossible values, or does not fit the image.
    """

    maps: MapSource

    def __post_init__(self) -> None:
        maps = load_npz(Path(self.maps)) if isinstance(self.maps, (str, PathLike)) else self.maps
        if not isinstance(maps, Mapping) or not maps:
            raise InputError(f"Give error maps as a dict from space to array, or an .npz file; got {maps!r}.")
        object.__setattr__(self, "maps", {str(space): _error_map(str(space), value) for space, value in maps.items()})

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        check_image(image)
        assert isinstance(self.maps, Mapping)
        return {space: _fit_map(torch.as_tensor(value), image) for space, value in self.maps.items()}


@dataclass(frozen=True, eq=False)
class GivenRegions:
    """Regions that the user has drawn: which space each pixel belongs to.

    Attributes:
        labels: Indices into ``spaces`` or, as a numpy array, their names; shapes and files as for
            :class:`~saminv.segment.labels.LabelImage`. In a picture the grey values or palette entries are the indices.
        spaces: Names, the most editable first.

    Raises:
        InputError: If a label is not one of the spaces, or the labels do not fit the image.
    """

    labels: LabelSource
    spaces: Sequence[str]

    def __post_init__(self) -> None:
        if isinstance(self.spaces, str) or not self.spaces:
            raise InputError(f"Given regions need a list of spaces, at least one; got {self.spaces!r}.")
        array = load_array(self.labels)
        labels = label_tensor(_names_to_indices(array, self.spaces) if array.dtype.kind == "U" else array)
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(self.spaces):
            raise InputError(
                f"The regions' labels lie in {low}..{high}, but index {len(self.spaces)} spaces "
                f"({', '.join(self.spaces)}), so only 0..{len(self.spaces) - 1} are allowed."
            )
        object.__setattr__(self, "labels", labels)

    def __call__(self, image: Tensor, *, formulation: Formulation = "paper") -> Regions:
        """Return the regions of images `[B, 3, H, W]`."""
        check_image(image)
        assert isinstance(self.labels, Tensor)
        return Regions(fit_labels(self.labels, image), tuple(self.spaces), formulation)


def _names_to_indices(names: np.ndarray, spaces: Sequence[str]) -> np.ndarray:
    found, inverse = np.unique(names, return_inverse=True)
    unknown = [str(name) for name in found if name not in spaces]
    if unknown:
        raise InputError(f"The regions name {', '.join(unknown)}, but the spaces are {', '.join(spaces)}.")
    return np.array([list(spaces).index(name) for name in found])[inverse].reshape(names.shape)


def _error_map(space: str, value: Tensor | np.ndarray) -> Tensor:
    """Return one error map as `[1 or B, 1, H, W]` float32."""
    try:
        tensor = torch.as_tensor(value).detach().float()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"The error map of {space} is no array of numbers: {error}") from error
    if tensor.dim() == 2:
        tensor = tensor[None]
    if tensor.dim() == 3:
        tensor = tensor[:, None]
    if tensor.dim() != 4 or tensor.shape[1] != 1 or tensor.numel() == 0:
        raise InputError(
            f"The error map of {space} must be [H, W], [B, H, W] or [B, 1, H, W], not {list(np.shape(value))}."
        )
    if not bool((tensor.isfinite() & (tensor >= 0)).all()):
        raise InputError(f"The error map of {space} has negative or non-finite values; errors are finite and >= 0.")
    return tensor


def _fit_map(error: Tensor, image: Tensor) -> Tensor:
    check_fit("error map", error.shape[0], error.shape[-2:], image)
    size = image.shape[-2:]
    if error.shape[-2:] != size:
        error = F.interpolate(error, size, mode="bilinear", antialias=True)
    return error.expand(image.shape[0], 1, *size).contiguous().to(image.device)

"""Directions in the files of published projects: .npy, .npz, .pt; nothing in them is executed.

=====================  ====  ===================================================================================
project                file  content
=====================  ====  ===================================================================================
SAM, e4e, PTI          npy   `[1, L, D]`, or as .pt `[1, D]` and `[1, L, D]`
InterFaceGAN           npy   `[1, D]`, of unit length
Feature-Style encoder  npy   `[1, L * D]`, of unit length over all
GANSpace               npz   ``lat_comp`` `[K, 1, D]`, ``lat_stdev`` `[K]`, ``lat_mean``
GANSpace in e4e        pt    ``comp`` `[K, 1, D]`, ``std`` `[K]`, ``mean``
StyleCLIP mapper       pt    ``state_dict`` and ``opts``: the change depends on the styles
=====================  ====  ===================================================================================
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .._errors import CheckpointError, InputError
from ..generators import AbstractGenerator
from .change import AbstractDirection, Change, Coordinate, LinearDirection

SUFFIXES = (".npy", ".npz", ".pt", ".pth")
COMPONENTS = {"comp": ("comp", "std", "mean"), "lat_comp": ("lat_comp", "lat_stdev", "lat_mean")}
"""Names of components, deviations and mean in files of GANSpace, by the first of them."""
FACTORS = "eigvec"
"""Factors of rosinality's closed form, which are the columns of this array."""
MAPPER_STEP = 0.1
"""What StyleCLIP multiplies the output of a mapper with."""
GROUPS = (("course_mapping", 0, 4), ("medium_mapping", 4, 8), ("fine_mapping", 8, None))
"""Mappers of StyleCLIP and the style slots of each."""


@dataclass(frozen=True, eq=False)
class StyleClipMapper(AbstractDirection):
    """A mapper of StyleCLIP: strength times 0.1 M(w) is added to w.

    Attributes:
        layers: By group of slots (first, end), weights `[D, D]` and biases `[D]` of its layers.
        slots: Style slots that are changed; all where None.

    Reference:
        Patashnik et al., 2021, arXiv 2103.17249, section 5, Eq. 6; its published code for the layers.
    """

    layers: Mapping[tuple[int, int | None], Sequence[tuple[Tensor, Tensor]]]
    slots: tuple[int, ...] | None = None

    def change(self, styles: Tensor, strength: Tensor) -> Change:
        moved = torch.zeros_like(styles)
        for (first, end), layers in self.layers.items():
            x = styles[:, first:end]
            # Over the slots of the group, not over the channels: so the mappers were trained.
            x = x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)
            for weight, bias in layers:
                x = F.linear(x, weight.to(x) * (0.01 / math.sqrt(weight.shape[1])), 0.01 * bias.to(x))
                x = F.leaky_relu(x, 0.2) * math.sqrt(2)
            moved[:, first:end] = x
        if self.slots is not None:
            keep = torch.zeros_like(moved[0, :, :1])
            keep[list(self.slots)] = 1
            moved = moved * keep
        return Change(MAPPER_STEP * strength.to(styles)[:, None, None] * moved)

    def in_slots(self, slots: Sequence[int]) -> StyleClipMapper:
        both = slots if self.slots is None else [slot for slot in slots if slot in self.slots]
        return replace(self, slots=tuple(both))


def read_published(
    path: str | Path, generator: AbstractGenerator, key: str | int | None = None, *, set_coordinate: bool = False
) -> AbstractDirection:
    """A direction in a file of a published project.

    Args:
        path: .npy, .npz, .pt or .pth.
        generator: Gives L and D.
        key: Which one of several: a number, or the name of an array.
        set_coordinate: Of a component of GANSpace: set its coordinate as the editors of encoders do, instead of adding
            to it.

    Raises:
        InputError: If there is no such file or key, or the direction does not fit the generator.
        CheckpointError: If the file is damaged, or holds something else or more than arrays.
    """
    content = _content(Path(path))
    if not isinstance(content, Mapping):
        rows = _rows(content, generator, f"{path}")
        return LinearDirection(rows[_position(key, len(rows), path)])
    for first, (component, deviation, mean) in COMPONENTS.items():
        if first in content:
            parts = [_array(content, name, path) for name in (component, deviation, mean)]
            return _component(parts, generator, key, path, set_coordinate)
    if isinstance(content.get("state_dict"), Mapping):
        return _mapper(content["state_dict"], generator, path)
    if isinstance(content.get(FACTORS), Tensor) and content[FACTORS].dim() == 2:
        rows = _rows(content[FACTORS].t(), generator, f"{path}")
        return LinearDirection(rows[_position(key, len(rows), path)])
    arrays = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if key is not None and str(key) in arrays:
        return LinearDirection(_rows(arrays[str(key)], generator, f"{path}#{key}")[0])
    if len(arrays) != 1:
        names = ", ".join(list(arrays)[:8]) or "none"
        raise CheckpointError(
            f"{path} holds {len(arrays)} arrays; a direction file holds one. Or say which, {path}#NAME, of: {names}."
        )
    rows = _rows(next(iter(arrays.values())), generator, f"{path}")
    return LinearDirection(rows[_position(key, len(rows), path)])


def _content(path: Path) -> Any:
    """A tensor, or a table of tensors and other plain values."""
    if not path.is_file():
        raise InputError(f"The direction file {path} does not exist.")
    try:
        if path.suffix in (".pt", ".pth"):
            return torch.load(path, map_location="cpu", weights_only=True)
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return tensor_of(loaded)
        with loaded:
            return {name: tensor_of(loaded[name]) for name in loaded.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointError(f"{path} is no readable array file: {str(error).rstrip('.')}.") from error
    except Exception as error:
        # The reader of .pt files has no errors of its own.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is damaged, or holds more than plain arrays: {reason}") from error


def tensor_of(array: np.ndarray) -> Tensor:
    """An array of numbers as a tensor.

    Raises:
        InputError: If it holds anything else.
    """
    if array.dtype.kind not in "fiu":
        raise InputError(f"A direction must be an array of numbers, not of {array.dtype}.")
    # Files may come in the byte order of another machine, which torch does not take.
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))


def _rows(array: Any, generator: AbstractGenerator, what: str) -> Tensor:
    """The directions `[K, L, D]` of an array."""
    slots, width = generator.num_styles, generator.style_dim
    if not isinstance(array, Tensor) or not array.is_floating_point() or not bool(torch.isfinite(array).all()):
        raise InputError("A direction must be an array of finite floating-point numbers.")
    shape, x = tuple(array.shape), array.float()
    if shape in ((width,), (1, width)):
        return x.reshape(1, 1, width).expand(1, slots, width)
    if shape in ((slots, width), (1, slots, width), (slots * width,), (1, slots * width)):
        return x.reshape(1, slots, width)
    if len(shape) == 3 and shape[1:] == (slots, width):
        return x
    if (len(shape) == 2 and shape[1] == width) or (len(shape) == 3 and shape[1:] == (1, width)):
        return x.reshape(-1, 1, width).expand(-1, slots, width)
    raise InputError(f"The direction in {what} is {list(shape)}; allowed is [{width}] or [{slots}, {width}].")


def _position(key: str | int | None, count: int, path: str | Path) -> int:
    if key is None and count == 1:
        return 0
    if key is None or not str(key).isdigit() or int(key) >= count:
        said = "" if key is None else f" no {key!r}, but"
        raise InputError(f"{path} has{said} directions 0 to {count - 1}; say which, such as {path}#0.")
    return int(key)


def _array(content: Mapping[Any, Any], name: str, path: str | Path) -> Tensor:
    if not isinstance(content.get(name), Tensor):
        raise CheckpointError(f"{path} has no array {name!r}; it has: {', '.join(map(str, content))}.")
    return content[name].float()


def _component(
    parts: Sequence[Tensor], generator: AbstractGenerator, key: str | int | None, path: str | Path, setting: bool
) -> AbstractDirection:
    components, deviations, mean = parts
    width = generator.style_dim
    if components.numel() != len(components) * width or len(deviations) != len(components) or mean.numel() != width:
        shapes = ", ".join(str(list(part.shape)) for part in parts)
        raise InputError(f"{path} has components, deviations and mean of {shapes}; this generator has D = {width}.")
    row = _position(key, len(components), path)
    component, deviation = components[row].reshape(width), float(deviations[row])
    slots = tuple(range(generator.num_styles))
    if setting:
        return Coordinate(component, mean.reshape(width), deviation, slots)
    return LinearDirection((deviation * component).expand(len(slots), width))


def _mapper(state: Mapping[str, Any], generator: AbstractGenerator, path: str | Path) -> StyleClipMapper:
    width = generator.style_dim
    single = [("mapping", 0, None)] if any(name.startswith("mapper.mapping.") for name in state) else []
    groups: dict[tuple[int, int | None], list[tuple[Tensor, Tensor]]] = {}
    for group, first, end in single or GROUPS:
        prefix = f"mapper.{group}.mapping."
        numbers = sorted({int(name[len(prefix) :].split(".")[0]) for name in state if name.startswith(prefix)})
        layers = [(state[f"{prefix}{k}.weight"], state[f"{prefix}{k}.bias"]) for k in numbers]
        if any(tuple(w.shape) != (width, width) or tuple(b.shape) != (width,) for w, b in layers):
            raise InputError(f"The mapper in {path} is not for styles of {width} numbers.")
        if layers:
            groups[(first, end)] = layers
    if not groups:
        raise CheckpointError(f"{path} is a state dict, but not of a mapper of StyleCLIP; it has no mapper.* arrays.")
    return StyleClipMapper(groups)

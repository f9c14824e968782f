"""Segments from a label image that the user has."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .._errors import ImageError, InputError
from ._base import AbstractSegmenter, Segments, check_image, register_segmenter

LabelSource = Tensor | np.ndarray | str | PathLike

# A label image with more distinct values than this is a photograph, or was saved with losses.
MAX_FILE_LABELS = 4096
# Label maps are resized to the image; a ratio of sides that is further off means another crop.
ASPECT_TOLERANCE = 0.05


@register_segmenter("labels")
@dataclass(frozen=True, eq=False)
class LabelImage(AbstractSegmenter):
    """Takes the segments from a label image; the image itself is not looked at.

    Attributes:
        labels: Integers `[H, W]`, `[B, H, W]` or `[B, 1, H, W]`, colours uint8 `[H, W, 3]`, or a file: .npy, .npz, or a
            lossless picture whose colours, grey values or palette entries are the labels. One map serves a whole
            batch. Maps of another size than the image are resized to the nearest label.
        names: Class names by label; may be empty.

    Raises:
        InputError: If the labels are no integers or of another shape, or do not fit the image.
        ImageError: If the file is no picture, or one saved with losses.
    """

    labels: LabelSource
    names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", label_tensor(load_array(self.labels)))

    def __call__(self, image: Tensor) -> Segments:
        check_image(image)
        assert isinstance(self.labels, Tensor)
        return Segments(fit_labels(self.labels, image), self.names)


def load_array(source: LabelSource, key: str = "labels") -> np.ndarray:
    """Return an array from an array, a tensor or a file; colours become one integer per pixel.

    Of an .npz file the array called ``key`` is taken, or the only one.
    """
    if isinstance(source, Tensor):
        return source.detach().cpu().numpy()
    if not isinstance(source, (str, PathLike)):
        return _pack_colours(np.asarray(source))
    path = Path(source)
    if path.suffix.lower() == ".npz":
        arrays = load_npz(path)
        if key not in arrays and len(arrays) != 1:
            raise InputError(f"{path} holds {', '.join(arrays) or 'nothing'}; name the wanted array {key!r}.")
        return _pack_colours(arrays.get(key, next(iter(arrays.values()))))
    return _pack_colours(_load_numpy(path)["array"] if path.suffix.lower() == ".npy" else _load_picture(path))


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file; nothing in it is executed."""
    return _load_numpy(path)


def label_tensor(array: np.ndarray) -> Tensor:
    """Return integer labels as int64 `[1 or B, H, W]`."""
    if array.dtype.kind not in "iub":
        raise InputError(f"Labels must be integers, not {array.dtype}; round them and convert to int64.")
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.size == 0:
        raise InputError(f"Labels must be [H, W], [B, H, W] or colours uint8 [H, W, 3], not {list(array.shape)}.")
    return torch.from_numpy(array.astype(np.int64))


def fit_labels(labels: Tensor, image: Tensor) -> Tensor:
    """Bring labels `[1 or B, h, w]` to the batch, size and device of ``image`` `[B, 3, H, W]`, by nearest pixel."""
    check_fit("label map", labels.shape[0], labels.shape[-2:], image)
    height, width = image.shape[-2:]
    rows, columns = _nearest(labels.shape[-2], height), _nearest(labels.shape[-1], width)
    fitted = labels[:, rows[:, None], columns]
    return fitted.expand(image.shape[0], height, width).contiguous().to(image.device)


def check_fit(what: str, batch: int, size: tuple[int, ...], image: Tensor) -> None:
    """Raise ``InputError`` if maps do not belong to ``image``: another batch or another ratio of sides."""
    if batch not in (1, image.shape[0]):
        raise InputError(f"{batch} {what}s for {image.shape[0]} images; give one for all, or one for each.")
    (h, w), (height, width) = size, image.shape[-2:]
    if abs((w * height) / (h * width) - 1) > ASPECT_TOLERANCE:
        raise InputError(
            f"A {what} of {h}x{w} (height x width) does not fit an image of {height}x{width}; crop both alike first."
        )


def _nearest(n_in: int, n_out: int) -> Tensor:
    return ((2 * torch.arange(n_out) + 1) * n_in) // (2 * n_out)


def _pack_colours(array: np.ndarray) -> np.ndarray:
    """Turn colours uint8 `[H, W, 3 or 4]` into one integer per pixel; leave other arrays alone."""
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in (3, 4):
        return array
    red, green, blue = np.moveaxis(array[..., :3].astype(np.int64), -1, 0)
    return (red << 16) | (green << 8) | blue


def _load_numpy(path: Path) -> dict[str, np.ndarray]:
    _check_file(path)
    try:
        loaded = np.load(path, allow_pickle=False)
        return {"array": loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no intact file of plain numpy arrays: {error}") from error


def _load_picture(path: Path) -> np.ndarray:
    from PIL import Image

    _check_file(path)
    try:
        with Image.open(path) as picture:
            if picture.format == "JPEG":
                raise ImageError(f"{path} is a JPEG, whose losses smear labels; save the label image as PNG.")
            keep = picture.mode in ("P", "L", "1", "RGB") or picture.mode.startswith("I")
            array = np.array(picture if keep else picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{path} cannot be read as a label image: {error}") from error
    found = len(np.unique(_pack_colours(array)))
    if found > MAX_FILE_LABELS:
        raise ImageError(
            f"{path} has {found} distinct values, so it is a photograph rather than a label image; "
            f"at most {MAX_FILE_LABELS} labels are allowed."
        )
    return array


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"There is no file {path}." if not path.exists() else f"{path} is no file.")

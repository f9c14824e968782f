"""Pictures in and out: load, fit to a generator, paste back, save.

Inside the library a picture is a float tensor `[B, 3, H, W]` in [-1, 1]. This is the only file that knows other forms:
0..255, alpha, palettes, EXIF, files.
"""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ._errors import ImageError, InputError, OutputError
from ._files import atomic_write

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 80_000_000
"""Larger pictures are refused before they are decoded: 80 megapixels need about 1 GB as float32."""

MIN_SIDE = 8
"""Smallest accepted height and width in pixels."""

RANGE_TOLERANCE = 1e-3
"""How far floats may lie outside [-1, 1]; they are clamped."""

LETTERBOX_BELOW = 0.75
"""``fit(..., mode="auto")`` letterboxes where a centre crop would keep less than this part of the area."""

# Formats that Pillow decodes in-process: it would hand PostScript to an external program.
_READ_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
_WRITE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_MOVING_FORMATS = {".gif": "GIF", ".png": "PNG", ".webp": "WEBP"}
_ACCEPTED = "a path, a PIL image, a numpy array or a torch tensor"
_decoding = threading.Lock()

Source = Union[str, "os.PathLike[str]", "Image.Image", np.ndarray, Tensor]
"""What :func:`load` accepts."""

Box = tuple[int, int, int, int]
"""A rectangle in pixels: left, top, right, bottom; right and bottom are outside."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture: ``tensor`` is float32 `[1, 3, H, W]` in [-1, 1] on the CPU, ``name`` the file's without suffix."""

    tensor: Tensor
    name: str = "image"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.tensor.shape[-2], self.tensor.shape[-1]


def load(source: Source, *, least: int | None = None) -> Picture:
    """Read one picture.

    Files and PIL images are turned upright by their EXIF tag; transparency is composited on white and, of several
    frames, one is used (the first of a file), both with a warning. Colour profiles are ignored.

    Arrays and tensors are `[H, W]`, `[H, W, C]`, `[C, H, W]` or a batch of one, with 1 or 3 channels, or 4 where they
    are integers. uint8 and other integers are 0..255, uint16 is 0..65535, floats are [-1, 1].

    With ``least``, JPEG files may be read at a half, a quarter or an eighth of their size, as long as both sides keep
    that many pixels. That is many times faster where a small copy is all that is needed.

    Raises:
        ImageError: If the file cannot be read as a whole, or the picture is too small or too large.
        InputError: If the source is of another type, or its shape, dtype or values do not fit.
    """
    pictures = _read(source, "image", least)
    if len(pictures) != 1:
        raise InputError(f"One picture is needed, but the batch holds {len(pictures)}; use load_many for batches.")
    return pictures[0]


def load_many(sources: Source | Sequence[Source] | Iterator[Source]) -> list[Picture]:
    """Read a single source, several, or a batch `[B, 3, H, W]` or `[B, H, W, 3]`; one picture per image.

    Names are made unique, so that results named after them do not overwrite each other.

    Raises:
        ImageError, InputError: As :func:`load`; also if there is no picture at all.
    """
    single = isinstance(sources, (str, bytes, os.PathLike, np.ndarray, Tensor))
    if single or not isinstance(sources, (Sequence, Iterator)):
        pictures = _read(sources, "image")
    else:
        pictures = [picture for i, source in enumerate(sources) for picture in _read(source, f"image{i}")]
    if not pictures:
        raise InputError("The list of pictures is empty; pass at least one picture.")
    return _unique_names(pictures)


def to_uint8(tensor: Tensor) -> np.ndarray:
    """Convert images `[B, 3, H, W]` in [-1, 1] (clamped) to uint8 `[B, H, W, 3]` in 0..255, rounded to the nearest.

    Raises:
        InputError: If the shape is another, or a value is NaN or infinite.
    """
    _check_images(tensor, "the images")
    values = tensor.detach().to("cpu", torch.float32)
    if not torch.isfinite(values).all():
        raise InputError("The images hold values that are NaN or infinite; they cannot be shown or saved.")
    levels = ((values.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().numpy()


def from_uint8(array: np.ndarray) -> Tensor:
    """Convert uint8 `[B, H, W, 3]` or `[H, W, 3]` to float32 `[B, 3, H, W]` in [-1, 1]; :func:`to_uint8` inverts it.

    Raises:
        InputError: If the shape or dtype is another.
    """
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3:
        raise InputError(f"uint8 [B, H, W, 3] or [H, W, 3] is needed, not {array.dtype} {list(array.shape)}.")
    return _to_tensor(_centred(array if array.ndim == 4 else array[None], 255))


def save(path: str | os.PathLike[str], tensor: Tensor, *, quality: int = 95) -> Path:
    """Write one image `[1, 3, H, W]` or `[3, H, W]` in [-1, 1] as PNG, JPEG or WebP, by the suffix of ``path``.

    The file appears whole or not at all. ``quality`` is 1 to 100 and has no effect on PNG.

    Raises:
        OutputError: If the suffix is unknown, or the file cannot be written there.
        InputError: If ``tensor`` is no single image, or ``quality`` is out of range.
    """
    target = Path(path)
    form = _WRITE_FORMATS.get(target.suffix.lower())
    if form is None:
        raise OutputError(f"Cannot save {target}: the suffix {target.suffix!r} is none of {', '.join(_WRITE_FORMATS)}.")
    if not 1 <= quality <= 100:
        raise InputError(f"quality is {quality}; it must be from 1 to 100.")
    image = tensor[None] if tensor.dim() == 3 else tensor
    pixels = to_uint8(image)
    if len(pixels) != 1:
        raise InputError(f"One image is saved per file, but the batch holds {len(pixels)}; save image[i : i + 1] each.")
    with atomic_write(target) as temporary:
        temporary.write_bytes(_encode(pixels[0], form, quality, target))
    return target


def save_animation(path: str | os.PathLike[str], frames: Tensor, *, rate: float = 12.0) -> Path:
    """Write images `[N, 3, H, W]` in [-1, 1] as an endless animation: GIF, PNG or WebP, by the suffix of ``path``.

    The file appears whole or not at all. A GIF has 256 colours; PNG and WebP keep all of them.

    Raises:
        OutputError: If the suffix is unknown, or the file cannot be written there.
        InputError: If ``frames`` are no images, or the rate (frames per second) is not from 1 to 50.
    """
    from PIL import Image

    target = Path(path)
    form = _MOVING_FORMATS.get(target.suffix.lower())
    if form is None:
        allowed = ", ".join(_MOVING_FORMATS)
        raise OutputError(f"Cannot animate {target}: the suffix {target.suffix!r} is none of {allowed}.")
    if not 1 <= rate <= 50:
        raise InputError(f"rate is {rate}; it must be from 1 to 50 frames per second.")
    first, *others = (Image.fromarray(pixels) for pixels in to_uint8(frames))
    options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
    buffer = io.BytesIO()
    try:
        duration = round(1000 / rate)
        first.save(buffer, form, save_all=True, append_images=others, duration=duration, loop=0, **options)
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"Cannot write {target}: {form} is not supported here ({error}); use .gif.") from error
    with atomic_write(target) as temporary:
        temporary.write_bytes(buffer.getvalue())
    return target


@dataclass(frozen=True)
class Crop:
    """How a picture was fitted to a generator; what :func:`paste_back` needs.

    Attributes:
        mode: ``"crop"`` or ``"letterbox"``.
        source_size: Height and width of the picture.
        size: Height and width of the generator's images.
        box: The part of the picture that was used, in its pixels; all of it when letterboxed.
        inner: The part of the generator's image that holds it, in its pixels; all of it when cropped.
    """

    mode: str
    source_size: tuple[int, int]
    size: tuple[int, int]
    box: Box
    inner: Box

    def __post_init__(self) -> None:
        if self.mode not in ("crop", "letterbox"):
            raise InputError(f"Crop mode {self.mode!r} is unknown; it is 'crop' or 'letterbox'.")
        for name, box, size in (("box", self.box, self.source_size), ("inner", self.inner, self.size)):
            left, top, right, bottom = box
            if not (0 <= left < right <= size[1] and 0 <= top < bottom <= size[0]):
                raise InputError(f"Crop {name} {box} does not lie within the size {size} (height, width).")

    def to_dict(self) -> dict[str, Any]:
        """Return plain strings and lists of numbers, for JSON and solution files."""
        return {key: value if isinstance(value, str) else list(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Crop:
        """Inverse of :meth:`to_dict`.

        Raises:
            InputError: If a field is missing or makes no sense.
        """
        try:
            names = ("source_size", "size", "box", "inner")
            rows: list[Any] = [tuple(int(number) for number in fields[name]) for name in names]
            return cls(str(fields["mode"]), *rows)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"This is no description of a crop: {error}; use the dict from Crop.to_dict.") from error


def fit(picture: Picture | Tensor, size: tuple[int, int], mode: str = "auto") -> tuple[Tensor, Crop]:
    """Fit a picture `[B, 3, H0, W0]` to a generator's image ``size`` (height, width).

    ``"crop"`` cuts the largest centred part of the generator's aspect ratio. ``"letterbox"`` keeps the whole picture
    and repeats its edge pixels up to the border. ``"auto"`` crops where that keeps at least 75 % of the area and
    letterboxes otherwise. Resizing is bicubic with antialiasing, clamped to [-1, 1]; small pictures are enlarged.

    Returns:
        Float images `[B, 3, H, W]` in [-1, 1], and the crop for :func:`paste_back`.

    Raises:
        InputError: If ``mode``, ``size`` or the picture's shape is not one of those.
    """
    image = _tensor_of(picture, "the picture")
    crop = _plan((image.shape[-2], image.shape[-1]), _checked_size(size), mode)
    left, top, right, bottom = crop.box
    inner_left, inner_top, inner_right, inner_bottom = crop.inner
    part = _resize(image[..., top:bottom, left:right], (inner_bottom - inner_top, inner_right - inner_left))
    border = (inner_left, crop.size[1] - inner_right, inner_top, crop.size[0] - inner_bottom)
    return (F.pad(part, border, mode="replicate") if any(border) else part.contiguous()), crop


def paste_back(original: Picture | Tensor, result: Tensor, crop: Crop, *, feather: float = 0.02) -> Tensor:
    """Put changed images `[B, 3, H, W]`, which :func:`fit` had fitted, back into their picture `[1, 3, H0, W0]`.

    Outside the crop the picture stays as it is, bit for bit. A letterbox border is cut off. ``feather`` is the width
    of the soft transition, as a part of the crop's shorter side; there is none where the crop ends with the picture.

    Returns:
        Float images `[B, 3, H0, W0]` in [-1, 1], on the device of ``result``.

    Raises:
        InputError: If the sizes do not match ``crop``, or ``feather`` is outside [0, 0.5].
    """
    image = _tensor_of(original, "the original")
    _check_images(result, "the result")
    for what, tensor, expected in (("original", image, crop.source_size), ("result", result, crop.size)):
        if tuple(tensor.shape[-2:]) != expected:
            raise InputError(f"The {what} is {list(tensor.shape)}, but the crop is for {expected} (height, width).")
    if len(image) not in (1, len(result)):
        raise InputError(f"{len(image)} originals do not go with {len(result)} results; pass one, or one for each.")
    if not 0 <= feather <= 0.5:
        raise InputError(f"feather is {feather}; it must be from 0 to 0.5.")
    left, top, right, bottom = crop.inner
    inner = result[..., top:bottom, left:right]
    left, top, right, bottom = crop.box
    part = _resize(inner, (bottom - top, right - left))
    pasted = image.to(part).repeat(len(result) // len(image), 1, 1, 1)
    weight = _feather(crop, feather).to(part)
    pasted[..., top:bottom, left:right] = torch.lerp(pasted[..., top:bottom, left:right], part, weight)
    return pasted


def area_resize(image: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Down-sample images `[B, C, H, W]` to ``size`` by averaging over areas; differentiable.

    Each output pixel is the mean of all input pixels that its area touches. Larger sizes repeat pixels.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if tuple(image.shape[-2:]) == (height, width):
        return image
    return F.interpolate(image, (height, width), mode="area")


def _read(source: Any, name: str, least: int | None = None) -> list[Picture]:
    """Read one source, which is a batch only where it is an array of four dimensions."""
    if isinstance(source, Tensor):
        return _from_array(_tensor_to_array(source, name), name)
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    if isinstance(source, (str, os.PathLike)) and isinstance(os.fspath(source), str):
        path = Path(source)
        return _from_array(_read_file(path, least), path.stem, str(path))
    from PIL import Image

    if isinstance(source, Image.Image):
        return _from_array(_decode(source, name), name)
    raise InputError(f"{name} is of type {type(source).__name__}, but a picture is {_ACCEPTED}.")


def _read_file(path: Path, least: int | None = None) -> np.ndarray:
    from PIL import Image

    _check_file(path)
    Image.init()
    # Older Pillow versions lack some of the formats and fail when asked for them.
    formats = [form for form in _READ_FORMATS if form in Image.OPEN]
    too_large = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        with warnings.catch_warnings():
            # Pillow's own limit is above ours: the size is checked before anything is decoded.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=formats)
    except too_large as error:
        # Pillow goes on with its own limit, which is not ours.
        raise ImageError(_too_large(str(path), str(error).split(" exceeds")[0])) from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"{path} is no picture that can be read; use one of {', '.join(formats)}.") from error
    except Exception as error:  # a damaged header makes decoders raise nearly anything
        raise ImageError(f"{path} cannot be opened: {error}. Get the picture again.") from error
    with image:
        return _decode(image, str(path), least)


def _check_file(path: Path) -> None:
    """Raise for what is not worth handing to a decoder."""
    try:
        if path.is_dir():
            raise ImageError(f"{path} is a folder; pass the files in it, for example by Path(...).glob('*.png').")
        if not path.exists():
            raise ImageError(f"There is no file {path}; relative paths start at {Path.cwd()}.")
        if not path.is_file():
            raise ImageError(f"{path} is not a regular file; save the picture to one first.")
        if path.stat().st_size == 0:
            raise ImageError(f"{path} is empty (0 bytes); get the picture again.")
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}.") from error


def _decode(image: Image.Image, what: str, least: int | None = None) -> np.ndarray:
    """Return the upright picture as uint8 `[H, W, 3 or 4]`, uint16 `[H, W]` or float32 `[H, W]`."""
    from PIL import ImageOps

    _check_size(image.height, image.width, what)
    try:
        if least is not None:
            image.draft(None, (least, least))
        with _whole_files_only():
            # The further pictures of a multi-picture JPEG are previews and brightness maps, nothing to mention.
            several = getattr(image, "is_animated", False) and image.format != "MPO"
            image.load()
        upright = ImageOps.exif_transpose(image)
    except Exception as error:  # damaged data make decoders raise nearly anything
        raise ImageError(f"{what} is damaged or incomplete: {error}. Get the picture again.") from error
    if several:
        warnings.warn(f"{what} has several frames; only frame {image.tell() + 1} is used.", stacklevel=5)
    return _pixels(upright, what)


@contextmanager
def _whole_files_only() -> Iterator[None]:
    """Make Pillow refuse truncated files even where another library has told it to fill them with grey."""
    from PIL import ImageFile

    with _decoding:
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _pixels(image: Image.Image, what: str) -> np.ndarray:
    """Turn any mode of Pillow into an array whose dtype tells its range."""
    if image.mode == "F":
        return np.asarray(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        # "I" is 32-bit, but the files that Pillow opens so are 16-bit ones.
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise ImageError(f"{what} is a 32-bit picture with values in {_span(levels)}; convert it to 8 or 16 bits.")
        return levels.astype(np.uint16)
    straight = image.convert("LA") if image.mode == "La" else image
    return np.asarray(straight.convert("RGBA" if image.has_transparency_data else "RGB"))


def _tensor_to_array(tensor: Tensor, what: str) -> np.ndarray:
    try:
        values = tensor.detach().cpu()
        # numpy has no bfloat16 and no 8-bit floats.
        return (values.float() if values.is_floating_point() and values.element_size() < 4 else values).numpy()
    except (TypeError, RuntimeError) as error:
        raise InputError(f"{what} is a tensor that cannot be read ({error}); pass a dense one.") from error


def _from_array(array: np.ndarray, name: str, what: str | None = None) -> list[Picture]:
    """Convert an array of any accepted layout and dtype to pictures, one per image."""
    what = what or name
    batch = _channels_last(array, what)
    _check_size(batch.shape[1], batch.shape[2], what)
    values = _to_range(batch, what)
    if values.shape[-1] == 4:
        values = _on_white(values, what)
    tensor = _to_tensor(values if values.shape[-1] == 3 else values.repeat(3, -1))
    names = [name] if len(tensor) == 1 else [f"{name}-{i}" for i in range(len(tensor))]
    return [Picture(tensor[i : i + 1], names[i]) for i in range(len(tensor))]


def _channels_last(array: np.ndarray, what: str) -> np.ndarray:
    """Return a view `[B, H, W, C]`."""
    if array.ndim == 2:
        return array[None, :, :, None]
    if array.ndim not in (3, 4):
        raise InputError(
            f"{what} has shape {list(array.shape)}; a picture is [H, W], [H, W, 3] or [3, H, W], "
            "a batch [B, 3, H, W] or [B, H, W, 3]."
        )
    batch = array if array.ndim == 4 else array[None]
    if len(batch) == 0:
        raise InputError(f"{what} is a batch of no images, shape {list(array.shape)}; pass at least one.")
    first, last = batch.shape[1] in (1, 3, 4), batch.shape[3] in (1, 3, 4)
    # No side is as short as a channel count, so that only a picture that is too small can be read both ways.
    if first and last:
        raise ImageError(f"{what} has shape {list(array.shape)}; both sides must be at least {MIN_SIDE} pixels.")
    if not (first or last):
        raise InputError(f"{what} has shape {list(array.shape)}; the first or the last axis of a picture is 1, 3 or 4.")
    return batch if last else np.moveaxis(batch, 1, -1)


def _to_range(array: np.ndarray, what: str) -> np.ndarray:
    """Convert by dtype to float32 in [-1, 1]."""
    kind, dtype = array.dtype.kind, array.dtype
    if kind in "ui":
        top = 65535 if kind == "u" and dtype.itemsize == 2 else 255
        if array.min() < 0 or array.max() > top:
            raise InputError(f"{what} has {dtype} values in {_span(array)}; integers are 0..255 and uint16 0..65535.")
        return _centred(array, top)
    if kind != "f":
        hint = "turn a mask into grey by astype('uint8') * 255" if kind == "b" else "convert it to one of these"
        raise InputError(f"{what} has dtype {dtype}; a picture is uint8 0..255, uint16 or float in [-1, 1]; {hint}.")
    if array.shape[-1] == 4:
        raise InputError(f"{what} has 4 channels of floats; alpha is understood in uint8 and uint16 only. Drop it.")
    _check_floats(array, what)
    return np.clip(array, -1, 1).astype(np.float32)


def _check_floats(array: np.ndarray, what: str) -> None:
    """Raise for floats outside [-1, 1]; warn where they look like [0, 1]."""
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise InputError(f"{what} holds {bad} values that are NaN or infinite; replace them first.")
    low, high = float(array.min()), float(array.max())
    limit = 1 + RANGE_TOLERANCE
    if low >= -RANGE_TOLERANCE and 2 < high <= 255.5:
        raise InputError(
            f"{what} holds floats in {_span(array)}, which look like 0..255; floats are [-1, 1]. "
            "Pass them as uint8, or as x / 127.5 - 1."
        )
    if low < -limit or high > limit:
        raise InputError(f"{what} holds floats in {_span(array)}; floats are [-1, 1]. Rescale or clamp them.")
    if low >= 0:
        message = (
            f"{what} has no negative value (range {_span(array)}), but floats are taken as [-1, 1]. "
            "If yours are in [0, 1], pass x * 2 - 1 instead."
        )
        warnings.warn(message, stacklevel=6)


def _centred(array: np.ndarray, top: int) -> np.ndarray:
    """Map 0..top to float32 [-1, 1]."""
    values = array.astype(np.float32)
    values /= top / 2
    values -= 1
    return values


def _on_white(values: np.ndarray, what: str) -> np.ndarray:
    """Composite `[B, H, W, 4]` in [-1, 1] on white."""
    colour, alpha = values[..., :3], (values[..., 3:] + 1) / 2
    if alpha.min() == 1:
        return colour
    warnings.warn(f"{what} has transparent pixels; they are composited on white.", stacklevel=5)
    return colour * alpha + (1 - alpha)


def _to_tensor(values: np.ndarray) -> Tensor:
    """Copy `[B, H, W, 3]` to a contiguous tensor `[B, 3, H, W]`."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 1)))


def _unique_names(pictures: list[Picture]) -> list[Picture]:
    taken: set[str] = set()
    unique = []
    for picture in pictures:
        name, count = picture.name, 1
        while name in taken:
            count += 1
            name = f"{picture.name}-{count}"
        taken.add(name)
        unique.append(Picture(picture.tensor, name))
    return unique


def _check_size(height: int, width: int, what: str) -> None:
    if height * width > MAX_PIXELS:
        raise ImageError(_too_large(what, f"it has {width} x {height} = {height * width:,} pixels"))
    if min(height, width) < MIN_SIDE:
        raise ImageError(
            f"{what} is {width} x {height} pixels; both sides must be at least {MIN_SIDE}. Use a larger version of it."
        )


def _too_large(what: str, detail: str) -> str:
    return (
        f"{what} is too large: {detail.rstrip('.')}; the limit is {MAX_PIXELS:,} pixels. Make it smaller first: "
        "generators work at 1024 x 1024 or less."
    )


def _span(array: np.ndarray) -> str:
    return f"[{array.min():.6g}, {array.max():.6g}]"


def _tensor_of(picture: Picture | Tensor, what: str) -> Tensor:
    tensor = picture.tensor if isinstance(picture, Picture) else picture
    _check_images(tensor, what)
    return tensor


def _check_images(tensor: Tensor, what: str) -> None:
    if not isinstance(tensor, Tensor):
        raise InputError(f"{what} must be a tensor, not {type(tensor).__name__}; load() makes one of {_ACCEPTED}.")
    if tensor.dim() != 4 or tensor.shape[1] != 3 or 0 in tensor.shape or not tensor.is_floating_point():
        raise InputError(f"{what} must be float [B, 3, H, W] in [-1, 1], not {tensor.dtype} {list(tensor.shape)}.")


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in size)
    except (TypeError, ValueError) as error:
        raise InputError(f"size is {size!r}; it is a pair (height, width) in pixels.") from error
    if min(height, width) < 1:
        raise InputError(f"size is {size!r}; height and width must be positive.")
    return height, width


def _plan(source: tuple[int, int], size: tuple[int, int], mode: str) -> Crop:
    """Decide between crop and letterbox and compute both rectangles."""
    if mode not in ("auto", "crop", "letterbox"):
        raise InputError(f"mode is {mode!r}; it is 'auto', 'crop' or 'letterbox'.")
    whole = (0, 0, source[1], source[0])
    box = _centred_box(size, source)
    kept = (box[2] - box[0]) * (box[3] - box[1]) / (source[0] * source[1])
    if mode == "crop" or (mode == "auto" and kept >= LETTERBOX_BELOW):
        return Crop("crop", source, size, box, (0, 0, size[1], size[0]))
    return Crop("letterbox", source, size, whole, _centred_box(source, size))


def _centred_box(shape: tuple[int, int], frame: tuple[int, int]) -> Box:
    """The largest centred rectangle of the aspect ratio of ``shape`` that lies in ``frame`` (height, width)."""
    scale = min(frame[0] / shape[0], frame[1] / shape[1])
    height, width = (min(f, max(1, round(s * scale))) for s, f in zip(shape, frame, strict=True))
    top, left = (frame[0] - height) // 2, (frame[1] - width) // 2
    return left, top, left + width, top + height


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic, antialiased, clamped; half precision is computed in float32. The same size is returned unchanged."""
    values = image if image.dtype == torch.float64 else image.float()
    if tuple(image.shape[-2:]) == size:
        return values
    return F.interpolate(values, size, mode="bicubic", align_corners=False, antialias=True).clamp(-1, 1)


def _feather(crop: Crop, feather: float) -> Tensor:
    """Weights `[h, w]` of the pasted part: 1 inside, falling to 0 at those edges that lie within the picture."""
    left, top, right, bottom = crop.box
    height, width = bottom - top, right - left
    band = max(feather * min(height, width), 1e-6)
    vertical = _ramp(height, band, top > 0, bottom < crop.source_size[0])
    horizontal = _ramp(width, band, left > 0, right < crop.source_size[1])
    return torch.minimum(vertical[:, None], horizontal[None, :])


def _ramp(length: int, band: float, start: bool, end: bool) -> Tensor:
    distance = torch.arange(length) + 0.5
    weight = torch.ones(length)
    if start:
        weight = torch.minimum(weight, distance / band)
    if end:
        weight = torch.minimum(weight, distance.flip(0) / band)
    return weight


def _encode(pixels: np.ndarray, form: str, quality: int, target: Path) -> bytes:
    """Encode uint8 `[H, W, 3]` in memory, so that only whole files meet the disk."""
    from PIL import Image

    # Full colour resolution: edits of small coloured things would bleed otherwise.
    options = {"JPEG": {"quality": quality, "subsampling": 0}, "WEBP": {"quality": quality}, "PNG": {}}[form]
    buffer = io.BytesIO()
    try:
        Image.fromarray(pixels).save(buffer, form, **options)
    except (OSError, ValueError, KeyError) as error:
        height, width = pixels.shape[:2]
        reason = f"{form} cannot hold {width} x {height} pixels or is not supported here ({error})"
        raise OutputError(f"Cannot write {target}: {reason}; use .png.") from error
    return buffer.getvalue()

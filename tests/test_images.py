"""Pictures in and out: every kind of file and array, the fit to a generator and the way back."""

from __future__ import annotations

import ast
import errno
import json
import math
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import PHOTOS
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFile
from torch import Tensor

from saminv import images
from saminv._errors import ImageError, InputError, OutputError
from saminv.images import Crop, Picture, area_resize, fit, from_uint8, load, load_many, paste_back, save, to_uint8

# One level of 255 in [-1, 1].
LEVEL = 2 / 255


@pytest.fixture(autouse=True)
def _unexpected_warnings_fail():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def colours(height: int = 12, width: int = 16) -> np.ndarray:
    """uint8 `[H, W, 3]`, no two axes or channels alike."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 15 % 256, y * 20 % 256, (x + 2 * y) * 5 % 256], -1).astype(np.uint8)


def smooth(height: int, width: int) -> Tensor:
    """A picture `[1, 3, H, W]` in [-0.8, 0.8] of less than one wave."""
    y, x = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)[None]
    waves = [torch.cos(2 * x + y + phase) for phase in (0.0, 1.0, 2.0)]
    return 0.8 * torch.stack(waves)[None]


def written(folder: Path, image: Image.Image, name: str, **options: Any) -> Path:
    image.save(folder / name, **options)
    return folder / name


def png_header(width: int, height: int) -> bytes:
    """A valid PNG that announces a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


# uint8 and back


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.just(3))))
@settings(max_examples=30, deadline=None)
def test_uint8_to_float_and_back_is_the_identity(array: np.ndarray) -> None:
    tensor = from_uint8(array)
    assert tensor.dtype == torch.float32 and tensor.is_contiguous()
    assert tensor.min() >= -1 and tensor.max() <= 1
    np.testing.assert_array_equal(to_uint8(tensor), array)


def test_every_level_round_trips_and_has_the_right_value() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, -1)
    tensor = from_uint8(levels)
    assert tensor.shape == (1, 3, 16, 16)
    assert tensor[0, 0, 0, 0] == -1 and tensor[0, 0, -1, -1] == 1
    torch.testing.assert_close(tensor[0, 1].flatten(), torch.arange(256) / 127.5 - 1)
    for dtype in (torch.float32, torch.float64):
        np.testing.assert_array_equal(to_uint8(tensor.to(dtype))[0], levels)


def test_to_uint8_rounds_to_the_nearest_and_clamps() -> None:
    tensor = torch.tensor([-7.0, -1 + 0.49 * LEVEL, -1 + 0.51 * LEVEL, 1 - 0.49 * LEVEL, 7.0])
    values = to_uint8(tensor.expand(1, 3, 1, 5))[0, 0, :, 0]
    assert values.tolist() == [0, 0, 1, 255, 255]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(3, 8, 8),
        torch.zeros(1, 1, 8, 8),
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(0, 3, 8, 8),
    ],
)
def test_to_uint8_refuses_other_shapes_and_dtypes(tensor: Tensor) -> None:
    with pytest.raises(InputError, match="float"):
        to_uint8(tensor)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_to_uint8_refuses_non_finite_values(bad: float) -> None:
    with pytest.raises(InputError, match="NaN or infinite"):
        to_uint8(torch.full((1, 3, 8, 8), bad))


@pytest.mark.parametrize("array", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((3, 8, 8), np.uint8)])
def test_from_uint8_refuses_other_shapes_and_dtypes(array: np.ndarray) -> None:
    with pytest.raises(InputError, match="uint8"):
        from_uint8(array)


# Arrays and tensors


@pytest.mark.parametrize(
    "source",
    [
        colours(),
        colours()[None],
        colours().transpose(2, 0, 1),
        colours().astype(np.int64),
        colours().astype(">i4"),
        colours().astype(np.uint16) * 257,
        colours().astype(">u2") * 257,
        colours() / 127.5 - 1,
        (colours() / 127.5 - 1).astype(np.float32)[::-1][::-1],
        np.dstack([colours(), np.full((12, 16), 255, np.uint8)]),
        torch.from_numpy(colours()),
        torch.from_numpy(colours()).permute(2, 0, 1),
        torch.from_numpy(colours()).permute(2, 0, 1)[None].long(),
        from_uint8(colours()),
        from_uint8(colours())[0],
        from_uint8(colours()).double().requires_grad_(),
        Image.fromarray(colours()),
    ],
    ids=lambda source: f"{type(source).__name__}-{getattr(source, 'dtype', '')}-{list(getattr(source, 'shape', ''))}",
)
def test_every_layout_and_dtype_gives_the_same_picture(source: Any) -> None:
    picture = load(source)
    assert picture.tensor.dtype == torch.float32
    assert picture.size == (12, 16)
    assert not picture.tensor.requires_grad
    torch.testing.assert_close(picture.tensor, from_uint8(colours()), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tensors(dtype: torch.dtype) -> None:
    expected = from_uint8(colours()).to(dtype)
    assert torch.equal(load(expected).tensor, expected.float())


@pytest.mark.parametrize("shape", [(12, 16), (1, 12, 16), (12, 16, 1), (1, 1, 12, 16)])
def test_grey_arrays_become_three_equal_channels(shape: tuple[int, ...]) -> None:
    grey = colours()[..., 0]
    tensor = load(grey.reshape(shape)).tensor
    torch.testing.assert_close(tensor, from_uint8(np.stack([grey] * 3, -1)))


def test_the_source_is_not_changed_or_shared() -> None:
    source = from_uint8(colours())
    before = source.clone()
    load(source).tensor.zero_()
    assert torch.equal(source, before)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (np.zeros(9), r"shape \[9\]"),
        (np.zeros((1, 1, 3, 9, 9)), "shape"),
        (np.zeros((9, 9, 5)), "1, 3 or 4"),
        (np.zeros((9, 9, 2), np.uint8), "1, 3 or 4"),
        (torch.zeros(0, 3, 9, 9), "no images"),
        (torch.zeros(2, 3, 9, 9) - 1, "load_many"),
        (np.zeros((9, 9), bool), "bool.*255"),
        (torch.zeros(9, 9, dtype=torch.bool), "bool.*255"),
        (torch.zeros(3, 9, 9, dtype=torch.complex64), "complex64"),
        (np.full((9, 9), "a"), "dtype <U1"),
        (np.full((9, 9), None), "dtype object"),
        (np.full((9, 9), 256), r"\[256, 256\].*0\.\.255"),
        (torch.full((9, 9), -1), "0..255"),
        (np.full((9, 9), 1 << 16, np.uint32), "0..255"),
        (torch.zeros(3, 9, 9).to_sparse(), "dense"),
        (torch.zeros(3, 9, 9, device="meta"), "cannot be read"),
        (torch.full((3, 9, 9), 1.002), "Rescale or clamp"),
        (torch.full((3, 9, 9), -1.002), "Rescale or clamp"),
        (torch.linspace(-3, 3, 81).reshape(9, 9), "Rescale or clamp"),
        (colours().astype(np.float32), "look like 0..255.*127.5"),
        (np.zeros((9, 9, 4)) - 0.5, "alpha"),
        (torch.full((3, 9, 9), float("nan")), "243 values that are NaN"),
        (np.full((9, 9), -np.inf), "81 values that are NaN or infinite"),
        (None, "NoneType"),
        ([[0, 1], [1, 0]], "list"),
        (b"a.png", "bytes"),
    ],
)
def test_unusable_arrays_and_types(source: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        load(source)


def test_floats_a_little_outside_are_clamped() -> None:
    tensor = load(torch.linspace(-1.0009, 1.0009, 81).reshape(9, 9)).tensor
    assert tensor.min() == -1 and tensor.max() == 1


@pytest.mark.parametrize("source", [colours() / 255, torch.from_numpy(colours() / 255), torch.zeros(3, 9, 9)])
def test_floats_without_negative_values_are_taken_as_they_are_with_a_warning(source: Any) -> None:
    with pytest.warns(UserWarning, match=r"x \* 2 - 1") as caught:
        tensor = load(source).tensor
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert tensor.min() >= 0


def test_a_batch_is_judged_as_one() -> None:
    dark_and_bright = torch.stack([torch.full((3, 9, 9), -0.5), torch.full((3, 9, 9), 0.5)])
    assert [float(picture.tensor.mean()) for picture in load_many(dark_and_bright)] == [-0.5, 0.5]


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 1, 1), (7, 9, 3), (9, 7), (3, 64, 3), (0, 9, 3), (1, 3, 0, 9)])
def test_small_arrays_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="at least 8"):
        load(np.zeros(shape, np.uint8))
    assert load(np.zeros((8, 8, 3), np.uint8)).size == (8, 8)


def test_large_arrays_are_refused_before_they_are_copied() -> None:
    huge = np.broadcast_to(np.uint8(0), (20_000, 20_000, 3))
    with pytest.raises(ImageError, match=r"400,000,000 pixels; the limit is 80,000,000"):
        load(huge)


# Several pictures


def test_load_many_takes_single_sources_lists_batches_and_iterators(tmp_path: Path) -> None:
    path = written(tmp_path, Image.fromarray(colours()), "car.png")
    batch = from_uint8(np.stack([colours()] * 3))
    assert [picture.name for picture in load_many(path)] == ["car"]
    assert [picture.name for picture in load_many(str(path))] == ["car"]
    assert [picture.name for picture in load_many(batch)] == ["image-0", "image-1", "image-2"]
    assert [picture.name for picture in load_many(to_uint8(batch))] == ["image-0", "image-1", "image-2"]
    assert [picture.name for picture in load_many(tmp_path.glob("*.png"))] == ["car"]
    mixed = load_many([path, Image.fromarray(colours()), batch[:2], path])
    assert [picture.name for picture in mixed] == ["car", "image1", "image2-0", "image2-1", "car-2"]
    for picture in mixed:
        assert picture.tensor.shape == (1, 3, 12, 16)
        assert torch.equal(picture.tensor, batch[:1])


@pytest.mark.parametrize("nothing", [[], (), iter([])])
def test_load_many_refuses_an_empty_list(nothing: Any) -> None:
    with pytest.raises(InputError, match="empty"):
        load_many(nothing)


def test_load_many_names_the_bad_one() -> None:
    with pytest.raises(InputError, match=r"^image1 "):
        load_many([colours(), np.zeros(5)])


# Files


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_lossless_files(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    picture = load(written(tmp_path, Image.fromarray(colours()), f"a.b.{suffix}", **options))
    assert picture.name == "a.b"
    assert torch.equal(picture.tensor, from_uint8(colours()))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"There is no file .*nothing\.png.*relative paths start at"):
        load(tmp_path / "nothing.png")


@pytest.mark.parametrize("path", ["", "nul\0byte.png"])
def test_paths_that_cannot_be_files(path: str) -> None:
    with pytest.raises(ImageError):
        load(path)


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder"):
        load(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(ImageError, match="empty"):
        load(tmp_path / "a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names exist on POSIX only")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="regular file"):
        load(tmp_path / "pipe.png")


@pytest.mark.parametrize("text", ["just words\n" * 50, "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_text_named_png(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.png").write_text(text)
    with pytest.raises(ImageError, match="no picture that can be read"):
        load(tmp_path / "a.png")


@pytest.mark.parametrize("generous", [False, True], ids=["strict", "LOAD_TRUNCATED_IMAGES"])
@pytest.mark.parametrize("kind", ["baseline.jpg", "progressive.jpg", "a.png", "a.webp", "a.gif", "a.tif"])
def test_a_truncated_file_never_gives_half_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, generous: bool
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = written(tmp_path, Image.fromarray(noise), kind, **({"progressive": True} if "prog" in kind else {}))
    whole, data = load(path).tensor, path.read_bytes()
    # Other libraries set this and would have Pillow fill the rest with grey.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", generous)
    for kept in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97):
        path.write_bytes(data[: int(len(data) * kept)])
        with pytest.raises(ImageError, match=r"damaged|cannot be opened|no picture"):
            load(path)
    for missing in (1, 2, 3, 5, 9):
        path.write_bytes(data[:-missing])
        try:
            # Where only the end marker is gone, all pixels are there.
            assert torch.equal(load(path).tensor, whole)
        except ImageError as error:
            assert "Get the picture again" in str(error)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is generous


def test_too_small_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="1 x 1 pixels; both sides must be at least 8"):
        load(written(tmp_path, Image.new("RGB", (1, 1)), "a.png"))
    assert load(written(tmp_path, Image.new("RGB", (8, 9)), "a.png")).size == (9, 8)


@pytest.mark.parametrize("side", [9000, 10_000, 20_000, 60_000])
def test_too_large_files_are_refused_by_their_header(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(png_header(side, side))
    with pytest.raises(ImageError, match=f"too large.*{side}|too large.*{side * side}") as caught:
        load(tmp_path / "a.png")
    assert "limit is 80,000,000 pixels" in str(caught.value)
    assert "smaller" in str(caught.value)


def test_the_limit_is_on_pixels_not_on_sides(tmp_path: Path) -> None:
    assert load(written(tmp_path, Image.new("RGB", (30_000, 8)), "a.png")).size == (8, 30_000)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("LA", "png"), ("1", "png"), ("P", "png"), ("RGBA", "png"), ("L", "jpg"), ("L", "tif")],
)
def test_grey_opaque_and_palette_files(tmp_path: Path, mode: str, suffix: str) -> None:
    image = Image.new("RGB", (9, 9), (255, 255, 255)).convert(mode)
    image.paste(Image.new("RGB", (4, 9)).convert(mode), (0, 0))
    tensor = load(written(tmp_path, image, f"a.{suffix}", **({"quality": 100} if suffix == "jpg" else {}))).tensor
    assert tensor.shape == (1, 3, 9, 9)
    assert (tensor[..., :3] + 1).abs().max() < 0.1
    assert (tensor[..., 6:] - 1).abs().max() < 0.1


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("CMYK", (0, 255, 255, 0), (1, -1, -1)),
        ("YCbCr", (255, 128, 128), (1, 1, 1)),
        ("HSV", (85, 255, 255), (-1, 1, -1)),
        ("LAB", (255, 128, 128), (1, 1, 1)),
        ("RGBX", (255, 0, 0, 9), (1, -1, -1)),
        ("F", -1.0, (-1, -1, -1)),
    ],
)
def test_other_colour_modes(mode: str, colour: Any, expected: tuple[float, ...]) -> None:
    tensor = load(Image.new(mode, (9, 9), colour)).tensor
    torch.testing.assert_close(tensor[0, :, 4, 4], torch.tensor(expected, dtype=torch.float32), atol=0.03, rtol=0)


def test_cmyk_jpeg_file(tmp_path: Path) -> None:
    path = written(tmp_path, Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "a.jpg", quality=95)
    torch.testing.assert_close(load(path).tensor[0, :, 8, 8], torch.tensor([-1.0, 1, 1]), atol=0.03, rtol=0)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_range(tmp_path: Path, suffix: str) -> None:
    levels = np.linspace(0, 65535, 9 * 16).astype(np.uint16).reshape(9, 16)
    path = written(tmp_path, Image.fromarray(levels), f"a.{suffix}")
    expected = torch.from_numpy(levels / 32767.5 - 1).float().expand(1, 3, 9, 16)
    torch.testing.assert_close(load(path).tensor, expected)
    with Image.open(path) as image:
        torch.testing.assert_close(load(image).tensor, expected)


def test_16_bit_colour_png(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    levels = colours().astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", 16, 12, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(data)
    torch.testing.assert_close(load(tmp_path / "a.png").tensor, from_uint8(colours()), atol=1e-6, rtol=0)


def test_32_bit_grey_is_refused_beyond_16_bits() -> None:
    assert load(Image.new("I", (9, 9), 65535)).tensor.min() == 1
    with pytest.raises(ImageError, match=r"32-bit.*70000"):
        load(Image.new("I", (9, 9), 70_000))


def transparent(mode: str) -> Image.Image:
    """Left half invisible, right half black."""
    image = Image.new("RGBA", (10, 10), (0, 0, 0, 255))
    image.paste((255, 0, 0, 0), (0, 0, 5, 10))
    if mode not in ("La", "PA"):
        return image.convert(mode)
    # Pillow reaches these two without loss by way of grey only.
    grey = image.convert("LA")
    if mode == "La":
        return grey.convert("La")
    grey.putpalette([level for level in range(256) for _ in range(3)])
    return grey


@pytest.mark.parametrize("mode", ["RGBA", "LA", "La", "RGBa", "PA"])
def test_transparency_is_composited_on_white_with_one_warning(mode: str) -> None:
    with pytest.warns(UserWarning, match="transparent pixels.*white") as caught:
        image = transparent(mode)
        assert image.mode == mode
        tensor = load(image).tensor
    assert len(caught) == 1
    assert (tensor[..., :5] == 1).all()
    assert (tensor[..., 5:] == -1).all()


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])], ids=["one index", "alpha per index"])
def test_palette_file_with_transparency(tmp_path: Path, transparency: Any) -> None:
    image = Image.new("P", (10, 10), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 5, 10))
    path = written(tmp_path, image, "a.png", transparency=transparency)
    with pytest.warns(UserWarning, match="white") as caught:
        tensor = load(path).tensor
    assert len(caught) == 1
    assert (tensor[..., :5] == 1).all()
    assert torch.equal(tensor[0, :, 0, 9], torch.tensor([-1.0, -1.0, 1.0]))


def test_half_transparent_arrays_are_blended() -> None:
    array = np.zeros((8, 8, 4), np.uint8)
    array[..., 3] = 51
    with pytest.warns(UserWarning, match="white"):
        tensor = load(array).tensor
    torch.testing.assert_close(tensor, torch.full((1, 3, 8, 8), 1 - 2 * 0.2))


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int, undo: Any) -> None:
    upright = Image.fromarray(colours())
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = written(tmp_path, upright if undo is None else upright.transpose(undo), "a.png", exif=exif)
    assert torch.equal(load(path).tensor, from_uint8(colours()))
    with Image.open(path) as image:
        assert torch.equal(load(image).tensor, from_uint8(colours()))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_an_animation_the_first_frame_is_used_with_a_warning(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("white", "black", "red")]
    options = {"lossless": True} if suffix == "webp" else {}
    path = written(tmp_path, frames[0], f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    with pytest.warns(UserWarning, match="several frames; only frame 1") as caught:
        tensor = load(path).tensor
    assert len(caught) == 1
    assert (tensor == 1).all()


def test_of_an_open_animation_the_current_frame_is_used(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("white", "black")]
    path = written(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    with Image.open(path) as image, pytest.warns(UserWarning, match="only frame 2"):
        image.seek(1)
        assert (load(image).tensor == -1).all()
        assert image.tell() == 1


def test_the_previews_of_a_phone_picture_are_passed_over(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), "white"), Image.new("RGB", (8, 8), "black")]
    path = written(tmp_path, frames[0], "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert (load(path).tensor > 0.98).all()


# Saving


@pytest.mark.parametrize(
    ("suffix", "tolerance"), [(".png", 0.0), (".PNG", 0.0), (".jpg", 0.1), (".jpeg", 0.1), (".webp", 0.1)]
)
def test_save_and_load(tmp_path: Path, suffix: str, tolerance: float) -> None:
    tensor = from_uint8(to_uint8(smooth(40, 30)))
    path = save(tmp_path / f"a{suffix}", tensor)
    assert os.listdir(tmp_path) == [f"a{suffix}"]
    assert (load(path).tensor - tensor).abs().max() <= tolerance
    assert torch.equal(load(save(str(path), tensor[0])).tensor, load(path).tensor)


def test_quality_has_an_effect(tmp_path: Path) -> None:
    small, large = (save(tmp_path / f"{q}.jpg", from_uint8(colours(64, 64)), quality=q) for q in (10, 100))
    assert small.stat().st_size < large.stat().st_size


@pytest.mark.parametrize("name", ["a", "a.txt", "a.gif", ".png"])
def test_save_refuses_unknown_suffixes(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"none of \.png, \.jpg, \.jpeg, \.webp"):
        save(tmp_path / name, smooth(8, 8))


@pytest.mark.parametrize(
    ("tensor", "quality"),
    [(torch.zeros(2, 3, 8, 8), 95), (torch.zeros(8, 8), 95), (torch.full((3, 8, 8), float("nan")), 95)]
    + [(torch.zeros(3, 8, 8), quality) for quality in (0, 101)],
)
def test_save_refuses_what_is_no_image(tmp_path: Path, tensor: Tensor, quality: int) -> None:
    with pytest.raises(InputError):
        save(tmp_path / "a.png", tensor, quality=quality)
    assert os.listdir(tmp_path) == []


def test_save_into_a_missing_folder_or_onto_a_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        save(tmp_path / "missing" / "a.png", smooth(8, 8))
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        save(tmp_path / "a.png", smooth(8, 8))


def test_a_full_disk_keeps_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", smooth(8, 8))
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="disk is full"):
        save(path, -smooth(8, 8))
    assert os.listdir(tmp_path) == ["a.png"]
    assert path.read_bytes() == before


def test_a_picture_that_the_format_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="WEBP cannot hold 20000 x 8"):
        save(tmp_path / "a.webp", torch.zeros(1, 3, 8, 20_000))
    assert os.listdir(tmp_path) == []


# Fitting and pasting back

sides = st.integers(8, 90)
sizes = st.tuples(sides, sides)
modes = st.sampled_from(["auto", "crop", "letterbox"])


@given(sizes, sizes, modes)
@settings(max_examples=80, deadline=None)
def test_the_fit_has_the_size_and_keeps_the_aspect_ratio(
    source: tuple[int, int], size: tuple[int, int], mode: str
) -> None:
    tensor, crop = fit(Picture(smooth(*source)), size, mode)
    assert tensor.shape == (1, 3, *size) and tensor.is_contiguous()
    assert tensor.abs().max() <= 1
    assert (crop.source_size, crop.size) == (source, size)
    box_h, box_w = crop.box[3] - crop.box[1], crop.box[2] - crop.box[0]
    inner_h, inner_w = crop.inner[3] - crop.inner[1], crop.inner[2] - crop.inner[0]
    # The whole of the one is placed in the other, and one side is rounded by half a pixel at most.
    if crop.mode == "crop":
        assert (inner_h, inner_w) == size
        assert abs(box_h * size[1] - box_w * size[0]) <= max(size) / 2
        assert box_h == source[0] or box_w == source[1]
    else:
        assert (box_h, box_w) == source
        assert abs(inner_h * source[1] - inner_w * source[0]) <= max(source) / 2
        assert inner_h == size[0] or inner_w == size[1]
    # Centred to half a pixel.
    for box, frame in ((crop.box, source), (crop.inner, size)):
        assert abs(box[0] - (frame[1] - box[2])) <= 1 and abs(box[1] - (frame[0] - box[3])) <= 1
    assert Crop.from_dict(json.loads(json.dumps(crop.to_dict()))) == crop
    kept = box_h * box_w / (source[0] * source[1])
    assert mode != "auto" or crop.mode == "letterbox" or kept >= 0.75


@given(st.tuples(st.integers(32, 90), st.integers(32, 90)), st.tuples(st.integers(32, 90), st.integers(32, 90)), modes)
@settings(max_examples=80, deadline=None)
def test_pasting_back_an_unchanged_fit_restores_the_picture(
    source: tuple[int, int], size: tuple[int, int], mode: str
) -> None:
    picture = smooth(*source)
    before = picture.clone()
    tensor, crop = fit(picture, size, mode)
    restored = paste_back(picture, tensor, crop)
    assert torch.equal(picture, before)
    assert restored.shape == picture.shape
    # Beyond the centres of the fitted picture's outermost pixels nothing is known. Pixels of the source lie up to
    # (shrunk - 1) / 2 of their size farther out; smooth() falls by at most 1.6 across and 0.8 down in all.
    shrunk = max(source[0] / size[0], source[1] / size[1], 1.0)
    unknown = (1.6 / source[1] + 0.8 / source[0]) * (shrunk - 1) / 2
    difference, rim = (restored - picture).abs(), math.ceil(shrunk)
    assert difference.max() < 0.01 + unknown
    assert difference[..., rim:-rim, rim:-rim].max() < 0.02
    left, top, right, bottom = crop.box
    outside = torch.ones(source, dtype=torch.bool)
    outside[top:bottom, left:right] = False
    assert torch.equal(restored[..., outside], picture[..., outside])


@given(sizes, sizes, modes, st.sampled_from([0.0, 0.02, 0.2, 0.5]))
@settings(max_examples=60, deadline=None)
def test_a_changed_crop_lies_in_its_box_with_a_soft_border(
    source: tuple[int, int], size: tuple[int, int], mode: str, feather: float
) -> None:
    black, white = -torch.ones(1, 3, *source), torch.ones(1, 3, *size)
    _, crop = fit(black, size, mode)
    pasted = paste_back(black, white, crop, feather=feather)[0, 0]
    left, top, right, bottom = crop.box
    # The pixel of the middle lies up to half a pixel beside it, on a ramp of this many pixels from -1 to 1.
    ramp = max(feather * min(bottom - top, right - left), 1)
    assert pasted[(top + bottom) // 2, (left + right) // 2] >= 1 - 1 / ramp - 1e-5
    assert pasted[top:bottom, left:right].min() > -1
    if feather == 0 or crop.box == (0, 0, source[1], source[0]):
        assert pasted[top:bottom, left:right].min() > 1 - 1e-5
    outside = pasted.clone()
    outside[top:bottom, left:right] = -1
    assert (outside == -1).all()


def test_feather_is_a_ramp_at_inner_edges_only() -> None:
    original, result = -torch.ones(1, 3, 100, 50), torch.ones(1, 3, 50, 50)
    _, crop = fit(original, (50, 50), "crop")
    assert crop.box == (0, 25, 50, 75)
    column = paste_back(original, result, crop, feather=0.08)[0, 0, :, 0]
    torch.testing.assert_close(column[24:30], torch.tensor([-1, -0.75, -0.25, 0.25, 0.75, 1]))
    torch.testing.assert_close(column, column.flip(0))


def test_the_rule_between_crop_and_letterbox() -> None:
    assert fit(smooth(75, 100), (64, 64))[1].mode == "crop"
    assert fit(smooth(74, 100), (64, 64))[1].mode == "letterbox"
    assert fit(smooth(48, 64), (96, 128))[1].box == (0, 0, 64, 48)


def test_a_letterbox_repeats_the_edge() -> None:
    picture = smooth(16, 64)
    tensor, crop = fit(picture, (64, 64), "letterbox")
    assert crop.inner == (0, 24, 64, 40)
    assert torch.equal(tensor[..., 24:40, :], picture)
    assert (tensor[..., :24, :] == picture[..., :1, :]).all()
    assert (tensor[..., 40:, :] == picture[..., -1:, :]).all()
    assert torch.equal(paste_back(picture, tensor, crop), picture)


def test_a_letterbox_border_does_not_bleed_into_the_picture() -> None:
    picture = smooth(16, 64)
    tensor, crop = fit(picture, (128, 128), "letterbox")
    left, top, right, bottom = crop.inner
    spoilt = torch.full_like(tensor, 1.0)
    spoilt[..., top:bottom, left:right] = tensor[..., top:bottom, left:right]
    assert torch.equal(paste_back(picture, spoilt, crop), paste_back(picture, tensor, crop))


def test_a_picture_of_the_right_size_passes_unchanged() -> None:
    picture = smooth(32, 48)
    tensor, crop = fit(picture, (32, 48))
    assert torch.equal(tensor, picture)
    changed = -tensor
    assert torch.equal(paste_back(picture, changed, crop), changed)


def test_very_narrow_pictures() -> None:
    tensor, crop = fit(smooth(8, 4000), (64, 64))
    assert crop.mode == "letterbox" and crop.inner == (0, 31, 64, 32)
    assert tensor.isfinite().all()


def test_downscaling_is_antialiased() -> None:
    checkerboard = ((torch.arange(256)[:, None] + torch.arange(256)) % 2 * 2.0 - 1).expand(1, 3, 256, 256)
    assert fit(checkerboard, (32, 32))[0].abs().max() < 0.01


def test_several_edits_of_one_picture() -> None:
    picture = smooth(40, 60)
    tensor, crop = fit(picture, (32, 32), "crop")
    edits = torch.cat([tensor, -tensor])
    pasted = paste_back(Picture(picture), edits, crop)
    assert pasted.shape == (2, 3, 40, 60)
    for i in range(2):
        assert torch.equal(pasted[i : i + 1], paste_back(picture, edits[i : i + 1], crop))
    with pytest.raises(InputError, match="2 originals do not go with 3"):
        paste_back(torch.cat([picture] * 2), torch.cat([tensor] * 3), crop)


def test_half_precision_results_are_pasted_in_float32() -> None:
    picture = smooth(40, 60)
    tensor, crop = fit(picture, (32, 32), "crop")
    pasted = paste_back(picture, tensor.bfloat16(), crop)
    assert pasted.dtype == torch.float32
    assert torch.equal(pasted[..., 0], picture[..., 0])


@pytest.mark.parametrize("size", [8, (8,), (0, 8), (8, -1), None, "ab"])
def test_fit_refuses_bad_sizes(size: Any) -> None:
    with pytest.raises(InputError, match="size"):
        fit(smooth(9, 9), size)


def test_fit_and_paste_back_refuse_bad_arguments() -> None:
    with pytest.raises(InputError, match=r"'stretch'.*'auto', 'crop' or 'letterbox'"):
        fit(smooth(9, 9), (8, 8), "stretch")
    with pytest.raises(InputError, match="must be float"):
        fit(torch.zeros(3, 9, 9), (8, 8))
    with pytest.raises(InputError, match="must be a tensor"):
        fit(colours(), (8, 8))  # type: ignore[arg-type]
    tensor, crop = fit(smooth(9, 12), (8, 8))
    with pytest.raises(InputError, match=r"original.*\(9, 12\)"):
        paste_back(smooth(9, 13), tensor, crop)
    with pytest.raises(InputError, match=r"result.*\(8, 8\)"):
        paste_back(smooth(9, 12), smooth(9, 12), crop)
    for feather in (-0.1, 0.6, float("nan")):
        with pytest.raises(InputError, match="feather"):
            paste_back(smooth(9, 12), tensor, crop, feather=feather)


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "stretch"},
        {"box": [0, 0, 0, 9]},
        {"box": [0, 0, 9]},
        {"inner": [0, 0, 9, 8]},
        {"size": None},
        {"box": "ab"},
    ],
)
def test_a_crop_is_checked_when_it_is_read(change: dict[str, Any]) -> None:
    fields = fit(smooth(9, 12), (8, 8))[1].to_dict()
    with pytest.raises(InputError):
        Crop.from_dict(fields | change)
    with pytest.raises(InputError, match=r"Crop\.to_dict"):
        Crop.from_dict({})


# Area resizing


def test_area_resize_averages_blocks() -> None:
    image = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    expected = image.reshape(2, 3, 4, 2, 4, 3).mean((3, 5))
    torch.testing.assert_close(area_resize(image, (4, 4)), expected)
    torch.testing.assert_close(area_resize(image, 4), expected)
    assert area_resize(image, (8, 12)) is image


def test_area_resize_is_differentiable() -> None:
    image = torch.randn(1, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: area_resize(x, (4, 3)), (image,))


# Real photographs


def test_real_photographs_pass_through_every_mode() -> None:
    paths = sorted(path for path in PHOTOS.glob("*/*") if path.suffix in (".png", ".jpg"))
    if not paths:
        pytest.skip("there are no photographs in ../shared/photos")
    for picture in load_many(paths[:1] + paths[-1:]):
        for mode in ("auto", "letterbox"):
            tensor, crop = fit(picture, (128, 128), mode)
            restored = paste_back(picture, tensor, crop)
            assert tensor.shape == (1, 3, 128, 128)
            assert (restored - picture.tensor).abs().mean() < 0.1


def test_importing_the_module_does_not_import_pillow() -> None:
    statements = ast.parse(Path(images.__file__).read_text()).body
    imported = [ast.unparse(line) for line in statements if isinstance(line, (ast.Import, ast.ImportFrom))]
    assert "import torch" in imported
    assert not [line for line in imported if "PIL" in line]

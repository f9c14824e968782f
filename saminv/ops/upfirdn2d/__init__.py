"""Resampling with a small filter: insert zeros, pad or crop, filter, keep every n-th pixel.

Derivatives: with respect to ``x``, of every order. The filter is a constant; one that asks for a gradient is refused.

Every filter here is a float tensor `[k]` (separable, used on both axes) or `[kh, kw]`, or None for no filter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..._errors import InputError
from .._dispatch import choose
from . import lean, reference

__all__ = [
    "add_pads",
    "downsample2d",
    "downsampling_pads",
    "filter2d",
    "filter_size",
    "parse_pads",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
    "upsampling_pads",
]

Factor = int | Sequence[int]
Pads = tuple[int, int, int, int]


def setup_filter(
    taps: float | Sequence[float] | Sequence[Sequence[float]] | Tensor,
    *,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Turn filter taps into the filter that :func:`upfirdn2d` takes.

    Args:
        taps: a number, `[k]` or `[kh, kw]`.
        normalize: Divide by the sum, so that the filter keeps a constant image.
        flip_filter: Reverse the taps.
        gain: Factor on the whole (two-dimensional) filter.
        separable: Keep one-dimensional taps as `[k]`; by default from 8 taps on, where two passes are cheaper.

    Returns:
        float32 `[k]` or `[kh, kw]`.

    Raises:
        InputError: no taps, more than two dimensions, two-dimensional taps asked to be separable, or a sum of zero.
    """
    f = torch.as_tensor(taps, dtype=torch.float32).detach()
    if f.dim() > 2 or f.numel() == 0:
        raise InputError(f"Filter taps must be a number, [k] or [kh, kw] and not empty, got shape {tuple(f.shape)}.")
    f = f[None] if f.dim() == 0 else f
    if separable and f.dim() == 2:
        raise InputError(f"A filter [kh, kw] cannot be made separable, got shape {tuple(f.shape)}; give taps [k].")
    keep = separable if separable is not None else f.numel() >= 8
    if f.dim() == 1 and not keep:
        f = torch.outer(f, f)
    if normalize:
        if float(f.sum()) == 0:
            raise InputError("Filter taps that sum to zero cannot be normalised; pass normalize=False.")
        f = f / f.sum()
    if flip_filter:
        f = f.flip(tuple(range(f.dim())))
    # A separable filter is applied twice.
    return (f * gain ** (f.dim() / 2)).to(device)


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    *,
    up: Factor = 1,
    down: Factor = 1,
    padding: Factor = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Tensor:
    """Up-sample by zero insertion, pad, filter, and down-sample each channel of an image.

    Args:
        x: `[B, C, H, W]`, any range.
        f: Filter, see :func:`setup_filter`.
        up: Each pixel is followed by ``up - 1`` zeros; an int or (x, y).
        down: Every ``down``-th pixel of the result is kept; an int or (x, y).
        padding: Zeros around the up-sampled image; an int, (x, y) or (left, right, top, bottom); negative crops.
        flip_filter: False convolves, True correlates.
        gain: Factor on the result.
        impl: "auto" | "reference" | "lean".

    Returns:
        `[B, C, H', W']` with ``H' = ceil((H * up + top + bottom - kh + 1) / down)``, ``W'`` likewise.

    Raises:
        InputError: wrong shapes or factors, a filter that wants a gradient, or nothing left after the crop.

    Reference:
        Karras et al., 2020, arXiv 1912.04958; as an operation it is textbook multirate filtering.
    """
    ups, downs, pads = _parse_factor("up", up), _parse_factor("down", down), parse_pads(padding)
    _check_image(x)
    _check_filter(f)
    width, height = filter_size(f)
    columns = x.shape[3] * ups[0] + pads[0] + pads[1] - width + 1
    rows = x.shape[2] * ups[1] + pads[2] + pads[3] - height + 1
    if columns < 1 or rows < 1:
        raise InputError(
            f"upfirdn2d leaves nothing of {x.shape[2]}x{x.shape[3]} pixels with up={ups}, padding={pads} and "
            f"a filter of {height}x{width} taps; pad more."
        )
    implementations = {"reference": reference.upfirdn2d, "lean": lean.upfirdn2d}
    function = choose("upfirdn2d", impl, implementations, x)
    result: Tensor = function(x, f, up=ups, down=downs, pads=pads, flip_filter=flip_filter, gain=gain)
    return result


def filter2d(
    x: Tensor,
    f: Tensor | None,
    *,
    padding: Factor = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Tensor:
    """Filter an image and keep its size; ``padding`` is added to what that takes. See :func:`upfirdn2d`."""
    (width, height), pads = filter_size(f), parse_pads(padding)
    extra = (width // 2, (width - 1) // 2, height // 2, (height - 1) // 2)
    return upfirdn2d(x, f, padding=add_pads(pads, extra), flip_filter=flip_filter, gain=gain, impl=impl)


def upsample2d(
    x: Tensor,
    f: Tensor | None,
    *,
    up: Factor = 2,
    padding: Factor = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Tensor:
    """Up-sample an image to ``up`` times its size, keep its mean; ``padding`` adds to that. See :func:`upfirdn2d`."""
    ux, uy = _parse_factor("up", up)
    pads = add_pads(parse_pads(padding), upsampling_pads(f, (ux, uy)))
    return upfirdn2d(x, f, up=(ux, uy), padding=pads, flip_filter=flip_filter, gain=gain * ux * uy, impl=impl)


def downsample2d(
    x: Tensor,
    f: Tensor | None,
    *,
    down: Factor = 2,
    padding: Factor = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Tensor:
    """Down-sample an image to ``1 / down`` of its size; ``padding`` adds to that. See :func:`upfirdn2d`."""
    downs = _parse_factor("down", down)
    pads = add_pads(parse_pads(padding), downsampling_pads(f, downs))
    return upfirdn2d(x, f, down=downs, padding=pads, flip_filter=flip_filter, gain=gain, impl=impl)


def filter_size(f: Tensor | None) -> tuple[int, int]:
    """(width, height) of a filter; no filter is 1 x 1."""
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def parse_pads(padding: Factor) -> Pads:
    """Write a padding as (left, right, top, bottom).

    Raises:
        InputError: it is not an int, nor two or four ints.
    """
    values = (padding, padding) if isinstance(padding, int) else tuple(int(p) for p in padding)
    if len(values) == 2:
        return values[0], values[0], values[1], values[1]
    if len(values) == 4:
        return values[0], values[1], values[2], values[3]
    raise InputError(f"padding must be an int, (x, y) or (left, right, top, bottom), got {padding!r}.")


def upsampling_pads(f: Tensor | None, up: tuple[int, int]) -> Pads:
    """Padding with which :func:`upfirdn2d` gives exactly ``up`` times the size, centred."""
    (width, height), (ux, uy) = filter_size(f), up
    return (width + ux - 1) // 2, (width - ux) // 2, (height + uy - 1) // 2, (height - uy) // 2


def downsampling_pads(f: Tensor | None, down: tuple[int, int]) -> Pads:
    """Padding with which :func:`upfirdn2d` gives exactly ``1 / down`` of the size, centred."""
    (width, height), (dx, dy) = filter_size(f), down
    return (width - dx + 1) // 2, (width - dx) // 2, (height - dy + 1) // 2, (height - dy) // 2


def add_pads(a: Pads, b: Pads) -> Pads:
    """Sum of two paddings."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]


def _parse_factor(name: str, factor: Factor) -> tuple[int, int]:
    values = (factor, factor) if isinstance(factor, int) else tuple(int(v) for v in factor)
    if len(values) != 2 or min(values) < 1:
        raise InputError(f"{name} must be a positive int or (x, y) of them, got {factor!r}.")
    return values[0], values[1]


def _check_image(x: Tensor) -> None:
    if x.dim() != 4:
        raise InputError(f"Expected a tensor [B, C, H, W], got shape {tuple(x.shape)}.")


def _check_filter(f: Tensor | None) -> None:
    if f is None:
        return
    if f.dim() not in (1, 2) or f.numel() == 0:
        raise InputError(f"A filter is [k] or [kh, kw] and not empty, got shape {tuple(f.shape)}; see setup_filter.")
    if f.requires_grad:
        raise InputError("upfirdn2d has no derivative with respect to the filter; pass f.detach().")

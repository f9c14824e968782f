"""Low-pass filters by the window method."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..._errors import InputError


def design_lowpass_filter(
    numtaps: int, cutoff: float, width: float, fs: float, *, radial: bool = False
) -> Tensor | None:
    """Design a low-pass filter with a Kaiser window.

    Args:
        numtaps: Number of taps; 1 means no filter.
        cutoff: Frequency at half amplitude, in the unit of ``fs``.
        width: Width of the transition band, in the same unit.
        fs: Sampling rate.
        radial: Make a rotationally symmetric filter `[k, k]` (a jinc) instead of a separable one `[k]` (a sinc).

    Returns:
        float32 `[k]` or `[k, k]` with sum 1, or None for one tap.

    Raises:
        InputError: no taps, or a cutoff that is not between 0 and half the sampling rate.

    Reference:
        Karras et al., 2021, arXiv 2106.12423; J. F. Kaiser, 1974, for the window.
    """
    if numtaps < 1 or width <= 0 or not 0 < cutoff < fs / 2:
        raise InputError(
            f"A low-pass filter needs numtaps >= 1, width > 0 and 0 < cutoff < fs / 2, got numtaps={numtaps}, "
            f"width={width}, cutoff={cutoff}, fs={fs}."
        )
    if numtaps == 1:
        return None
    beta = _kaiser_beta(numtaps, width / (fs / 2))
    window = torch.kaiser_window(numtaps, periodic=False, beta=beta, dtype=torch.float64)
    position = (torch.arange(numtaps, dtype=torch.float64) - (numtaps - 1) / 2) / fs
    if radial:
        taps = _jinc(torch.hypot(position[:, None], position), cutoff) * torch.outer(window, window)
    else:
        taps = torch.sinc(2 * cutoff * position) * window
    return (taps / taps.sum()).float()


def _kaiser_beta(numtaps: int, width: float) -> float:
    """Window parameter for a transition of ``width``, relative to half the sampling rate."""
    attenuation = 2.285 * (numtaps - 1) * math.pi * width + 7.95
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    return 0.0


def _jinc(radius: Tensor, cutoff: float) -> Tensor:
    """Impulse response of a disc of radius ``cutoff`` in the frequency plane, up to a factor."""
    at_zero = radius == 0
    argument = torch.where(at_zero, 1.0, 2 * math.pi * cutoff * radius)
    # J1(t) / t tends to 1/2.
    return torch.where(at_zero, 0.5, torch.special.bessel_j1(argument) / argument)

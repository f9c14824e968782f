"""Metrics: how far a picture is from its target, per image.

What is here: pixel metrics (``mse``, ``psnr``), ``ssim``, the perceptual metrics (``demo``, ``lpips-vgg``,
``lpips-alex``, ``lpips-squeeze``), further losses for inversions (``layers.py``: :class:`MultiScale` of another metric,
identity and face parsing) and the measures of editing (:func:`edit_effect`, :func:`drift`).

How to add one: write a subclass of :class:`AbstractMetric` in a file of its own (a metric that compares features of a
network derives from :class:`AbstractPerceptual` and gives features and channel weights only) and register it below, as
``"module:attribute"``, so that it is imported on first use.

May import: the ground floor, :mod:`saminv.ops` and :mod:`saminv.weights`. Optional packages are imported inside
functions.
"""

from __future__ import annotations

from ._base import METRICS, AbstractMetric, AbstractPerceptual, Prepared, get_metric
from .editing import drift, edit_effect
from .layers import MultiLayerIdentity, MultiLayerParsing, MultiScale

METRICS.add("mse", "saminv.metrics.pixel:MSE")
METRICS.add("psnr", "saminv.metrics.pixel:PSNR")
METRICS.add("ssim", "saminv.metrics.ssim:SSIM")
METRICS.add("demo", "saminv.metrics.vision:DemoPerceptual")
METRICS.add("lpips-vgg", "saminv.metrics.lpips:lpips_vgg")
METRICS.add("lpips-alex", "saminv.metrics.lpips:lpips_alex")
METRICS.add("lpips-squeeze", "saminv.metrics.lpips:lpips_squeeze")

__all__ = [
    "METRICS",
    "AbstractMetric",
    "AbstractPerceptual",
    "MultiLayerIdentity",
    "MultiLayerParsing",
    "MultiScale",
    "Prepared",
    "drift",
    "edit_effect",
    "get_metric",
]

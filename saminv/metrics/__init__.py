"""Metrics: how far a picture is from its target, per image, and how far a set of pictures is from another.

What is here: pixel metrics (``mse``, ``psnr``), ``ssim`` and ``ms-ssim``, the perceptual metrics (``demo``,
``lpips-vgg``, ``lpips-alex``, ``lpips-squeeze``), ``identity``, further losses for inversions (``layers.py``:
:class:`MultiScale` of another metric, identity and face parsing), the measures of editing (:func:`edit_effect`,
:func:`drift`, :func:`latent_editing_consistency`), metrics of sets (``sets.py``: ``fid``, ``kid``,
``identity-consistency``) on feature extractors (``features.py``), and :func:`score`, which takes any of them by name.

How to add one: write a subclass of :class:`AbstractMetric` in a file of its own (a metric that compares features of a
network derives from :class:`AbstractPerceptual` and gives features and channel weights only) and register it below, as
``"module:attribute"``, so that it is imported on first use. A metric of sets derives from :class:`AbstractSetMetric`, a
feature extractor from :class:`AbstractExtractor`; their registries are ``SET_METRICS`` and ``EXTRACTORS``. Then give it
a row in ``docs/metrics.md``.

May import: the ground floor, :mod:`saminv.ops` and :mod:`saminv.weights`. Optional packages are imported inside
functions.
"""

from __future__ import annotations

from ._base import METRICS, AbstractMetric, AbstractPerceptual, Prepared, get_metric
from .editing import drift, edit_effect, latent_editing_consistency
from .features import EXTRACTORS, AbstractExtractor, DemoFeatures, get_extractor
from .identity import IdentitySimilarity
from .inception import InceptionFeatures
from .layers import MultiLayerIdentity, MultiLayerParsing, MultiScale
from .scores import score
from .sets import FID, KID, SET_METRICS, AbstractSetMetric, IdentityConsistency, get_set_metric
from .statistics import FeatureStatistics, statistics_of_files

EXTRACTORS.add("demo", DemoFeatures)
EXTRACTORS.add("inception", InceptionFeatures)

METRICS.add("mse", "saminv.metrics.pixel:MSE")
METRICS.add("psnr", "saminv.metrics.pixel:PSNR")
METRICS.add("ssim", "saminv.metrics.ssim:SSIM")
METRICS.add("ms-ssim", "saminv.metrics.ssim:MSSSIM")
METRICS.add("demo", "saminv.metrics.vision:DemoPerceptual")
METRICS.add("lpips-vgg", "saminv.metrics.lpips:lpips_vgg")
METRICS.add("lpips-alex", "saminv.metrics.lpips:lpips_alex")
METRICS.add("lpips-squeeze", "saminv.metrics.lpips:lpips_squeeze")
METRICS.add("identity", IdentitySimilarity)

__all__ = [
    "EXTRACTORS",
    "FID",
    "KID",
    "METRICS",
    "SET_METRICS",
    "AbstractExtractor",
    "AbstractMetric",
    "AbstractPerceptual",
    "AbstractSetMetric",
    "DemoFeatures",
    "FeatureStatistics",
    "IdentityConsistency",
    "IdentitySimilarity",
    "InceptionFeatures",
    "MultiLayerIdentity",
    "MultiLayerParsing",
    "MultiScale",
    "Prepared",
    "drift",
    "edit_effect",
    "get_extractor",
    "get_metric",
    "get_set_metric",
    "latent_editing_consistency",
    "score",
    "statistics_of_files",
]

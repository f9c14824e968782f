"""Segments of an image, and the rule that gives each segment a latent space.

What is here: the interfaces and segment arithmetic (``_base``), the τ rule (``allocate``), segmenters ("felzenszwalb"
and "slic" of scikit-image, "labels" from a label image, "none", and by its name alone the demo's own "demo"), and maps
or regions that the user gives (``given``).

How to add a segmenter: write a class with ``__call__(image) -> Segments`` that derives from ``AbstractSegmenter`` in a
file of its own, and decorate it with ``register_segmenter("name")``; its constructor's arguments are its settings, and
it should work without any. Import heavy packages inside functions and raise ``MissingExtraError`` where they lack.

What this folder may import: the ground floor (``_types``, ``_errors``, ``_registry``, ``sites``, ``regions``,
``images``), ``weights``, ``ops``, and ``generators`` and ``metrics``; not ``spaces``, ``optim``, ``encoders`` or
``editing``.
"""

from ._base import (
    SEGMENTERS,
    AbstractInvertibility,
    AbstractSegmenter,
    Segments,
    WholeImage,
    dense_ids,
    merge_small,
    paint,
    register_segmenter,
    segment_mean,
)
from .allocate import allocate, check_tau
from .given import GivenInvertibility, GivenRegions
from .labels import LabelImage
from .skimage import Felzenszwalb, Slic

# By name only: the demo stands above this folder, and its weights are wanted by nobody else.
SEGMENTERS.add("demo", "saminv.demo.segmenter:DemoSegmenter")

__all__ = [
    "SEGMENTERS",
    "AbstractInvertibility",
    "AbstractSegmenter",
    "Felzenszwalb",
    "GivenInvertibility",
    "GivenRegions",
    "LabelImage",
    "Segments",
    "Slic",
    "WholeImage",
    "allocate",
    "check_tau",
    "dense_ids",
    "merge_small",
    "paint",
    "register_segmenter",
    "segment_mean",
]

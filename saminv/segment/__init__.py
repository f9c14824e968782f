"""Segments of an image, and the rule that gives each segment a latent space.

What is here: the interfaces and segment arithmetic (``_base``), the τ rule (``allocate``), segmenters ("felzenszwalb"
and "slic" of scikit-image, "labels" from a label image, "none", and by their names alone the demo's own "demo" and
those with trained networks), class names with rules that merge them (``classes``), maps or regions that the user gives
(``given``), and the networks that predict maps (``network``, ``backbones``, ``deeplab``, ``predicted``).

How to add a segmenter: write a class with ``__call__(image) -> Segments`` that derives from ``AbstractSegmenter`` in a
file of its own, and decorate it with ``register_segmenter("name")``; its constructor's arguments are its settings, and
it should work without any. Import heavy packages inside functions and raise ``MissingExtraError`` where they lack.

What this folder may import: the ground floor (``_types``, ``_errors``, ``_registry``, ``sites``, ``regions``,
``images``), ``weights``, ``ops``, ``generators``, ``metrics`` and ``checkpoints``; not ``spaces``, ``optim``,
``encoders`` or ``editing``.
"""

from ._base import (
    SEGMENTERS,
    AbstractInvertibility,
    AbstractSegmenter,
    Segments,
    WholeImage,
    clean,
    dense_ids,
    merge_small,
    paint,
    register_segmenter,
    segment_mean,
)
from .allocate import allocate, check_tau
from .classes import Merging
from .given import GivenInvertibility, GivenRegions
from .labels import LabelImage
from .network import InvertibilityConfig, InvertibilityNet, load_invertibility, save_invertibility
from .predicted import PREDICTED_TAU, PredictedInvertibility, find_network, load_published
from .skimage import Felzenszwalb, Slic

# By name only: the demo stands above this folder, and its weights are wanted by nobody else.
SEGMENTERS.add("demo", "saminv.demo.segmenter:DemoSegmenter")
# By name only, so that neither torchvision nor detectron2 is imported before it is needed.
SEGMENTERS.add("deeplabv3", "saminv.segment.torchvision:DeepLabV3")
SEGMENTERS.add("lraspp", "saminv.segment.torchvision:LRASPP")
SEGMENTERS.add("maskrcnn", "saminv.segment.torchvision:MaskRCNN")
SEGMENTERS.add("detectron2-panoptic", "saminv.segment.detectron2:Detectron2Panoptic")
SEGMENTERS.add("detectron2-maskrcnn", "saminv.segment.detectron2:Detectron2MaskRCNN")
SEGMENTERS.add("ade20k", "saminv.segment.ade20k:ADE20KSegmenter")
SEGMENTERS.add("face-parsing", "saminv.segment.bisenet:FaceParser")

__all__ = [
    "PREDICTED_TAU",
    "SEGMENTERS",
    "AbstractInvertibility",
    "AbstractSegmenter",
    "Felzenszwalb",
    "GivenInvertibility",
    "GivenRegions",
    "InvertibilityConfig",
    "InvertibilityNet",
    "LabelImage",
    "Merging",
    "PredictedInvertibility",
    "Segments",
    "Slic",
    "WholeImage",
    "allocate",
    "check_tau",
    "clean",
    "dense_ids",
    "find_network",
    "load_invertibility",
    "load_published",
    "merge_small",
    "paint",
    "register_segmenter",
    "save_invertibility",
    "segment_mean",
]

"""Latent spaces: each is its variables plus the taps it adds at a generator's sites.

What is here: :class:`AbstractSpace` (``_base.py``), the regularisers (``priors.py``) and one small file per family. How
to add one: subclass :class:`AbstractSpace`, register it in :data:`SPACES` under its name or the letters its names begin
with. No generator changes. May import: generators (their base), ops and the ground floor; never a solver.
"""

from ._base import (
    SPACES,
    AbstractSpace,
    AbstractStyleSpace,
    SpaceOptions,
    available_spaces,
    cut_off,
    make_space,
    resolve_spaces,
)
from .class_embedding import ClassSpace, LayeredClassSpace
from .feature import FeatureSpace
from .feature_style import FeatureStyleSpace
from .noise import NoiseSpace
from .padding import PaddingSpace
from .styles import WPlusSpace, WSpace
from .weights import GeneratorSpace
from .z import ZPlusSpace, ZSpace

__all__ = [
    "SPACES",
    "AbstractSpace",
    "AbstractStyleSpace",
    "ClassSpace",
    "FeatureSpace",
    "FeatureStyleSpace",
    "GeneratorSpace",
    "LayeredClassSpace",
    "NoiseSpace",
    "PaddingSpace",
    "SpaceOptions",
    "WPlusSpace",
    "WSpace",
    "ZPlusSpace",
    "ZSpace",
    "available_spaces",
    "cut_off",
    "make_space",
    "resolve_spaces",
]

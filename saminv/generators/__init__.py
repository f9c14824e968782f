"""Frozen generators and the sites they announce.

What is here: :class:`AbstractGenerator` (``_base.py``), what the StyleGANs share (``_style_based.py``), the layers that
read styles (``_style_layers.py``), the file of a generator (``_file.py``), and one module per family. How to add one:
subclass it, announce ``sites``, interpret taps in ``synthesis``, register the class in :data:`FAMILIES` and named ones
in :data:`GENERATORS`. May import: ``ops``, ``weights`` and the ground floor; never a space or a solver.
"""

from ._base import FAMILIES, GENERATORS, AbstractGenerator, LatentStatistics
from ._file import build_generator, generator_from_arrays, save_generator, with_crop
from ._style_layers import StyleLayer, style_layers, style_matrix
from .biggan_deep import BigGANDeep, BigGANDeepConfig
from .stylegan1 import StyleGAN1, StyleGAN1Config
from .stylegan2 import StyleGAN2, StyleGAN2Config
from .stylegan3 import StyleGAN3, StyleGAN3Config

__all__ = [
    "FAMILIES",
    "GENERATORS",
    "AbstractGenerator",
    "BigGANDeep",
    "BigGANDeepConfig",
    "LatentStatistics",
    "StyleGAN1",
    "StyleGAN1Config",
    "StyleGAN2",
    "StyleGAN2Config",
    "StyleGAN3",
    "StyleGAN3Config",
    "StyleLayer",
    "build_generator",
    "generator_from_arrays",
    "save_generator",
    "style_layers",
    "style_matrix",
    "with_crop",
]

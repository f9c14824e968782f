"""Frozen generators and the sites they announce.

What is here: :class:`AbstractGenerator` (``_base.py``), what the StyleGANs share (``_style_based.py``), the file of a
generator (``_file.py``), and one module per family. How to add one: subclass it, announce ``sites``, interpret taps in
``synthesis``, register the class in :data:`FAMILIES` and named ones in :data:`GENERATORS`. May import: ``ops``,
``weights`` and the ground floor; never a space or a solver.
"""

from ._base import FAMILIES, GENERATORS, AbstractGenerator, LatentStatistics
from ._file import build_generator, generator_from_arrays, save_generator, with_crop
from .biggan_deep import BigGANDeep, BigGANDeepConfig
from .stylegan2 import StyleGAN2, StyleGAN2Config

__all__ = [
    "FAMILIES",
    "GENERATORS",
    "AbstractGenerator",
    "BigGANDeep",
    "BigGANDeepConfig",
    "LatentStatistics",
    "StyleGAN2",
    "StyleGAN2Config",
    "build_generator",
    "generator_from_arrays",
    "save_generator",
    "with_crop",
]

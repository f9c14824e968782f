"""Frozen generators and the sites they announce.

What is here: :class:`AbstractGenerator` (``_base.py``) and one file per family. How to add one: subclass it, announce
``sites``, interpret taps in ``synthesis``, register a factory in :data:`GENERATORS`. May import: ``ops``, ``weights``
and the ground floor; never a space or a solver.
"""

from ._base import GENERATORS, AbstractGenerator, LatentStatistics
from .stylegan2 import StyleGAN2, StyleGAN2Config

__all__ = ["GENERATORS", "AbstractGenerator", "LatentStatistics", "StyleGAN2", "StyleGAN2Config"]

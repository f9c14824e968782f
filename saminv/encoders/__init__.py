"""Encoders: pictures to latents in one pass, from which a solver starts.

What is here: :class:`AbstractEncoder` (``_base.py``), one module per architecture, what they share (``_trunk.py``), the
library's own file of an encoder (``_file.py``), and files of others (``published.py``). How to add one: subclass
:class:`AbstractEncoder`, register the class in :data:`ARCHITECTURES`, and functions that open trained ones in
:data:`ENCODERS`. May import: generators, metrics, ``ops``, ``weights`` and the ground floor; never a space, a solver or
an edit.
"""

from ._base import ARCHITECTURES, ENCODERS, AbstractEncoder, EncoderConfig, make_encoder
from ._file import is_encoder_file, save_encoder
from ._open import encoder_for, load_encoder
from .feature_style import FeatureStyleConfig, FeatureStyleEncoder
from .gradual import GradualConfig, GradualEncoder
from .padinv import PadInvConfig, PadInvEncoder
from .published import encoder_from_published, load_published
from .sam import SAMConfig, SAMEncoder

__all__ = [
    "ARCHITECTURES",
    "ENCODERS",
    "AbstractEncoder",
    "EncoderConfig",
    "FeatureStyleConfig",
    "FeatureStyleEncoder",
    "GradualConfig",
    "GradualEncoder",
    "PadInvConfig",
    "PadInvEncoder",
    "SAMConfig",
    "SAMEncoder",
    "encoder_for",
    "encoder_from_published",
    "is_encoder_file",
    "load_encoder",
    "load_published",
    "make_encoder",
    "save_encoder",
]

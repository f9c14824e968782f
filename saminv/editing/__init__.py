"""Edits of a solution: directions, how they are found and applied, and the pictures that show them.

What is here: directions by name, file or tensor (``references.py``, ``directions.py``, ``published.py``), sets of them
that were found (``sets.py``) by ``sefa.py``, ``ganspace.py``, ``interfacegan.py``, ``regression.py``, and ``text.py``
with ``effects.py``; ``apply.py`` (section 3.4 of the SAM report) and ``edits.py`` around it; ``safe.py`` (how far) and
``within.py`` (where); ``mix.py`` (what several solutions hold, combined); ``editability.py`` and ``consistency.py``
(how much of an edit comes through, and whether an inversion knows its own edits); ``sheet.py``, ``panels.py`` and
``strips.py`` (pictures).

How to add one: a function of a generator that returns a ``DirectionSet``, or of a solution that returns images. May
import: spaces, segments and everything below.
"""

from .apply import render_edit
from .change import AbstractDirection, LinearDirection
from .consistency import EditingConsistency, editing_consistency, latent_distance
from .directions import class_direction, direction_names
from .edits import edit_solution
from .effects import channel_effects, effects_file
from .ganspace import ganspace_directions
from .interfacegan import conditioned, fit_boundary, interfacegan_directions
from .mix import PairEdit, blend, interpolate, mean_image, mix_styles
from .published import read_published
from .references import find_direction, resolve_direction
from .regression import regression_directions
from .safe import Bounds, safe_strength
from .sefa import sefa_directions
from .sets import DirectionSet, kept_names, kept_set
from .strips import draw_frames, draw_samples, draw_strip, sample_solution
from .text import Clip, text_directions

__all__ = [
    "AbstractDirection",
    "Bounds",
    "Clip",
    "DirectionSet",
    "EditingConsistency",
    "LinearDirection",
    "PairEdit",
    "blend",
    "channel_effects",
    "class_direction",
    "conditioned",
    "direction_names",
    "draw_frames",
    "draw_samples",
    "draw_strip",
    "edit_solution",
    "editing_consistency",
    "effects_file",
    "find_direction",
    "fit_boundary",
    "ganspace_directions",
    "interfacegan_directions",
    "interpolate",
    "kept_names",
    "kept_set",
    "latent_distance",
    "mean_image",
    "mix_styles",
    "read_published",
    "regression_directions",
    "render_edit",
    "resolve_direction",
    "safe_strength",
    "sample_solution",
    "sefa_directions",
    "text_directions",
]

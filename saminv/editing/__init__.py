"""Edits of a solution: directions, how they are applied, and the sheet that shows them.

What is here: ``directions.py`` (find a direction by name, file or tensor), ``apply.py`` (section 3.4 of the SAM
report), ``mix.py`` (what several solutions hold, combined), ``editability.py`` and ``consistency.py`` (how much of an
edit comes through, and whether an inversion knows its own edits), ``sheet.py`` (the picture). How to add one: a
function of a solution that returns images. May import: spaces, segments and everything below.
"""

from .apply import edit_solution, render_edit
from .consistency import EditingConsistency, editing_consistency, latent_distance
from .directions import class_direction, direction_names, resolve_direction
from .mix import PairEdit, blend, interpolate, mean_image, mix_styles

__all__ = [
    "EditingConsistency",
    "PairEdit",
    "blend",
    "class_direction",
    "direction_names",
    "edit_solution",
    "editing_consistency",
    "interpolate",
    "latent_distance",
    "mean_image",
    "mix_styles",
    "render_edit",
    "resolve_direction",
]

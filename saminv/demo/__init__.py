"""The demo world: procedural car scenes with exact labels, and strangers that no generator of scenes has seen.

What is here: :func:`render` draws scenes from named factors, :func:`sample_scenes` draws random ones, with strangers on
request, :func:`factors_from_z` says which scene a generator's latent stands for.

How to add a factor: name it in ``CONTINUOUS_FACTORS`` of ``scenes.py`` and use it in one ``_paint_`` function.
How to add a stranger: name it in ``STRANGER_SEGMENTS`` there and write one function in ``strangers.py``.

What it may import: everything below it (see the layers in setup.cfg); the scenes and strangers need torch only.
"""

from __future__ import annotations

from .scenes import CAR_SEGMENTS, FACTORS, SEGMENT_NAMES, SceneBatch, factors_from_z, render
from .strangers import sample_scenes

__all__ = ["CAR_SEGMENTS", "FACTORS", "SEGMENT_NAMES", "SceneBatch", "factors_from_z", "render", "sample_scenes"]

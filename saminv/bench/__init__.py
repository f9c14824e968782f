"""What a step and an inversion cost on this machine, and what they could cost: ``saminv bench``.

What is here: what the machine can do at best (``ceilings.py``), a step of full size with random weights
(``workload.py``), other formulations of that step to compare with (``plain.py``, ``compiled.py``), how they are timed
(``speed.py``), how soon solvers come near a target (``descent.py``, ``target.py``), what share of the memory's
bandwidth the kernels achieve (``kernels.py``), published code beside ours (``against.py``; ``families.py`` says how to
add a kind, ``guest.py`` runs it), how close methods come to pictures (``quality.py``; its rows ``rows.py``, its methods
by name ``methods.py``, edits ``edits.py``, protocols of papers ``protocols.py``, lists of pictures ``splits.py``), what
has changed between two such reports (``compare.py``, ``written.py``), and how all of it is shown (``report.py``).
Contenders run in processes of their own and take turns (``processes.py``). May import: everything but the command line.
"""

from __future__ import annotations

from .against import AgainstReport, measure_against
from .ceilings import Ceilings, measure_ceilings
from .compare import Comparison, compare_quality
from .kernels import KernelReport, measure_kernels
from .quality import measure_quality
from .rows import QualityReport
from .speed import SpeedReport, measure_speed
from .target import TargetReport, measure_target
from .workload import Workload

__all__ = [
    "AgainstReport",
    "Ceilings",
    "Comparison",
    "KernelReport",
    "QualityReport",
    "SpeedReport",
    "TargetReport",
    "Workload",
    "compare_quality",
    "measure_against",
    "measure_ceilings",
    "measure_kernels",
    "measure_quality",
    "measure_speed",
    "measure_target",
]

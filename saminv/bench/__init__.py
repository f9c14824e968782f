"""What a step costs on this machine, and what it could cost: ``saminv bench speed``.

What is here: what the machine can do at best (``ceilings.py``), a step of full size with random weights
(``workload.py``), the usual formulation of that step to compare with (``plain.py``), how both are timed (``speed.py``)
and shown (``report.py``). May import: everything but the command line and runs.
"""

from __future__ import annotations

from .ceilings import Ceilings, measure_ceilings
from .speed import SpeedReport, measure_speed
from .workload import Workload

__all__ = ["Ceilings", "SpeedReport", "Workload", "measure_ceilings", "measure_speed"]

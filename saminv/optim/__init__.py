"""Solvers: what is minimised, how, and when to stop.

What is here: the problem and its objective, the one loop (``solve.py``), one file per solver, wrappers that add
behaviour, and ``escalate.py``, which measures invertibility. How to add a solver: subclass :class:`AbstractSolver`
with ``init`` and ``update``; state is a value apart from the solver. May import: the base files of spaces, generators
and metrics, ops, regions, solution; no single space, generator or metric.
"""

from .adam import Adam
from .coarse import CoarseToFine
from .escalate import Escalate
from .lbfgs import LBFGS
from .objective import Objective
from .problem import Evaluation, Problem
from .relay import Relay
from .schedule import Schedule
from .solve import solve
from .solver import AbstractSolver, SolverState
from .wrappers import BestSoFar, PlateauStop, StopAt

__all__ = [
    "LBFGS",
    "AbstractSolver",
    "Adam",
    "BestSoFar",
    "CoarseToFine",
    "Escalate",
    "Evaluation",
    "Objective",
    "PlateauStop",
    "Problem",
    "Relay",
    "Schedule",
    "SolverState",
    "StopAt",
    "solve",
]

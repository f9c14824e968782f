"""saminv: optimization-centric GAN inversion and editing.

The public door. :func:`invert` inverts pictures by spatially-adaptive multilayer inversion, :class:`Solution` holds
the result, :func:`load_generator` opens a generator. Importing computes, compiles and downloads nothing and leaves the
GPU alone.
"""

from . import demo
from ._api import edit, invert, load_generator, sweep
from ._errors import (
    BenchError,
    CheckpointError,
    ImageError,
    InputError,
    MissingExtraError,
    OutputError,
    RunError,
    SaminvError,
    SolutionError,
    Status,
    WeightsError,
    WorkerError,
)
from ._memory import keep_memory
from ._presets import PRESETS
from ._version import __version__
from .optim import Adam, BestSoFar, Objective, PlateauStop, Problem, solve
from .regions import Regions
from .segment import GivenInvertibility, GivenRegions, allocate
from .solution import Solution

__all__ = [
    "PRESETS",
    "Adam",
    "BenchError",
    "BestSoFar",
    "CheckpointError",
    "GivenInvertibility",
    "GivenRegions",
    "ImageError",
    "InputError",
    "MissingExtraError",
    "Objective",
    "OutputError",
    "PlateauStop",
    "Problem",
    "Regions",
    "RunError",
    "SaminvError",
    "Solution",
    "SolutionError",
    "Status",
    "WeightsError",
    "WorkerError",
    "__version__",
    "allocate",
    "demo",
    "edit",
    "invert",
    "keep_memory",
    "load_generator",
    "solve",
    "sweep",
]

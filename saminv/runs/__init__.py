"""Runs over many pictures: resumable, in true batches, with a record of each picture.

What is here: the run itself (``folder.py``), its record on disk (``manifest.py``), the slots that pictures pass
through (``stream.py``), further processes (``workers.py``), and what a finished run looks like as a whole
(``summary.py``, ``gallery.py``). Two more things that are made of many inversions: data for an invertibility network
(``errors.py``), and sweeps over τ (``sweeps.py``).

How to add another kind of result: write a picklable callable ``(name, solution) -> {kind: path}`` like
:class:`SolutionWriter` and pass it as ``write=``. What this folder may import: everything but ``cli``.
"""

from .._sources import Item, collect
from .errors import build_errors
from .folder import RunReport, progress_of, run
from .gallery import write_gallery
from .manifest import Manifest, read_manifest
from .stream import Outcome, stream
from .summary import Summary, describe_run, plot_histograms, summarise_run
from .sweeps import describe_curve, plot_curve, save_sweep, sweep_curve
from .writers import SolutionWriter

__all__ = [
    "Item",
    "Manifest",
    "Outcome",
    "RunReport",
    "SolutionWriter",
    "Summary",
    "build_errors",
    "collect",
    "describe_curve",
    "describe_run",
    "plot_curve",
    "plot_histograms",
    "progress_of",
    "read_manifest",
    "run",
    "save_sweep",
    "stream",
    "summarise_run",
    "sweep_curve",
    "write_gallery",
]

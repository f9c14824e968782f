"""Runs over many pictures: resumable, in true batches, with a record of each picture.

What is here: the run itself (``folder.py``), its record on disk (``manifest.py``), which pictures there are and what
they are called (``sources.py``), the slots that pictures pass through (``stream.py``), further processes
(``workers.py``), and what a finished run looks like as a whole (``summary.py``, ``gallery.py``).

How to add another kind of result: write a picklable callable ``(name, solution) -> {kind: path}`` like
:class:`SolutionWriter` and pass it as ``write=``. What this folder may import: everything but ``cli``.
"""

from .folder import RunReport, run
from .manifest import Manifest, read_manifest
from .sources import Item, collect
from .stream import Outcome, stream
from .writers import SolutionWriter

__all__ = [
    "Item",
    "Manifest",
    "Outcome",
    "RunReport",
    "SolutionWriter",
    "collect",
    "read_manifest",
    "run",
    "stream",
]

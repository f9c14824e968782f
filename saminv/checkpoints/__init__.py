"""Readers of checkpoints: a file of any published form in, a generator out. Nothing in a file is executed.

What is here: :func:`read_checkpoint` and what it is made of. ``_contents.py`` turns a file into plain values, inert
records and arrays (an interpreter of pickles in ``_pickle.py``, the names it knows in ``_stand_ins.py``, archives in
``_archive.py``); ``_forms.py`` and ``_other_forms.py`` recognise whose file it is; one file per family of array names,
such as ``nvlabs.py``, builds the generator. :func:`read_discriminator` has ``discriminators.py``.

How to add one: a function for the form, from contents to a checkpoint; for new names of arrays, a function
``<family>_from_<names>`` from (arrays, settings) to a generator, entered in ``_builders.py``.

May import: the generators and the ground floor.
"""

from ._found import Checkpoint
from ._trees import printable
from .biggan import biggan_from_huggingface
from .genforce import stylegan2_from_genforce, stylegan3_from_genforce
from .nvlabs import stylegan2_from_nvlabs
from .read import (
    build_checkpoint,
    checkpoint_notes,
    load_checkpoint_generator,
    open_checkpoint,
    read_arrays,
    read_checkpoint,
    read_discriminator,
)
from .rosinality import stylegan2_from_rosinality
from .sam_invertibility import read_sam_invertibility
from .stylegan1 import stylegan1_from_genforce, stylegan1_from_rosinality, stylegan1_from_tensorflow
from .stylegan3 import stylegan3_from_nvlabs
from .tensorflow import stylegan2_from_tensorflow
from .values import read_values
from .write import save_checkpoint

__all__ = [
    "Checkpoint",
    "biggan_from_huggingface",
    "build_checkpoint",
    "checkpoint_notes",
    "load_checkpoint_generator",
    "open_checkpoint",
    "printable",
    "read_arrays",
    "read_checkpoint",
    "read_discriminator",
    "read_sam_invertibility",
    "read_values",
    "save_checkpoint",
    "stylegan1_from_genforce",
    "stylegan1_from_rosinality",
    "stylegan1_from_tensorflow",
    "stylegan2_from_genforce",
    "stylegan2_from_nvlabs",
    "stylegan2_from_rosinality",
    "stylegan2_from_tensorflow",
    "stylegan3_from_genforce",
    "stylegan3_from_nvlabs",
]

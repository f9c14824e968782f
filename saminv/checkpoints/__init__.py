"""Readers of foreign checkpoint formats: names and arrays in, a generator out. Nothing in a file is executed.

What is here: one file per family of names. How to add one: a function from (arrays, configuration) to a generator, or,
for networks of higher layers (``sam_invertibility``), from a path to checked arrays.
May import: the generators and the ground floor.
"""

from .biggan import biggan_from_huggingface
from .genforce import stylegan2_from_genforce
from .nvlabs import stylegan2_from_nvlabs
from .rosinality import stylegan2_from_rosinality
from .sam_invertibility import read_sam_invertibility

__all__ = [
    "biggan_from_huggingface",
    "read_sam_invertibility",
    "stylegan2_from_genforce",
    "stylegan2_from_nvlabs",
    "stylegan2_from_rosinality",
]

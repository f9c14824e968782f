"""Readers of foreign checkpoint formats: names and arrays in, a generator out. Nothing in a file is executed.

What is here: one file per family of names. How to add one: a function from (arrays, configuration) to a generator, or,
for networks of higher layers (``sam_invertibility``), from a path to checked arrays.
May import: the generators and the ground floor.
"""

from .genforce import stylegan2_from_genforce
from .nvlabs import stylegan2_from_nvlabs
from .rosinality import stylegan2_from_rosinality
from .sam_invertibility import read_sam_invertibility
from .stylegan1 import stylegan1_from_genforce, stylegan1_from_rosinality, stylegan1_from_tensorflow
from .stylegan3 import stylegan3_from_nvlabs

__all__ = [
    "read_sam_invertibility",
    "stylegan1_from_genforce",
    "stylegan1_from_rosinality",
    "stylegan1_from_tensorflow",
    "stylegan2_from_genforce",
    "stylegan2_from_nvlabs",
    "stylegan2_from_rosinality",
    "stylegan3_from_nvlabs",
]

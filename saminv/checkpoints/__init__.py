"""Readers of foreign checkpoint formats: names and arrays in, a generator out. Nothing in a file is executed.

What is here: one file per family of names. How to add one: a function from (arrays, configuration) to a generator.
May import: the generators and the ground floor.
"""

from .nvlabs import stylegan2_from_nvlabs

__all__ = ["stylegan2_from_nvlabs"]

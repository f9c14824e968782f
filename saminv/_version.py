"""The version of the library; setup.cfg reads it."""

__version__ = "0.1.0"

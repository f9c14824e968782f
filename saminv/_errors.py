"""Exceptions of the library and the per-image status codes of a solve.

Every message says what came, what is allowed and what to try. All of them derive from :class:`SaminvError`; those that
are caused by the caller's input derive from ``ValueError`` too.
"""

from __future__ import annotations

from enum import IntEnum


class SaminvError(Exception):
    """Base class of every error that the library raises on purpose."""


class InputError(SaminvError, ValueError):
    """An argument is wrong: unknown name, impossible combination, out of range."""


class ImageError(InputError):
    """A picture cannot be read, or is not a picture that the library can use."""


class CheckpointError(SaminvError, ValueError):
    """A weight file is damaged, of an unknown format, or does not fit."""


class SolutionError(SaminvError, ValueError):
    """A solution file is damaged, is none, or belongs to another generator."""


class WeightsError(SaminvError, RuntimeError):
    """Weights that are needed are not on this machine and could not be fetched."""


class RunError(SaminvError, ValueError):
    """The folder of a run is in use, damaged, or of other settings."""


class WorkerError(SaminvError, RuntimeError):
    """A process of a run has failed; what is done is kept."""


class BenchError(SaminvError, RuntimeError):
    """Code that was to be measured failed, took too long, or is not what it was taken for."""


class OutputError(SaminvError, OSError):
    """A result cannot be written."""


class MissingExtraError(SaminvError, ImportError):
    """An optional dependency is not installed; the message names the extra."""


class Status(IntEnum):
    """How the solve of one image ended."""

    RUNNING = 0
    COMPLETED = 1
    PLATEAU = 2
    NON_FINITE = 3
    INTERRUPTED = 4
    REACHED = 5

    @property
    def sentence(self) -> str:
        """The status as a whole sentence."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.RUNNING: "The solve has not ended yet.",
    Status.COMPLETED: "All steps were taken; the best iterate is returned.",
    Status.PLATEAU: "The loss stopped improving; the best iterate is returned.",
    Status.NON_FINITE: "The loss became infinite or not a number; the best finite iterate is returned. "
    "Try a smaller learning rate or float32.",
    Status.INTERRUPTED: "The solve was interrupted; the best iterate so far is returned.",
    Status.REACHED: "The loss that was asked for is reached.",
}

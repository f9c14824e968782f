"""The ``saminv`` command: one sub-command for each public function.

Results go to the standard output, messages, warnings and progress to the standard error.

What is here: a file for each command with ``add(commands)``, which adds its parser; the options that several commands
share (``options.py``); and what a command is (``_console.py``). A new command is one more file, named in ``COMMANDS``.
This folder may import everything.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .._errors import SaminvError
from .._memory import keep_memory
from .._version import __version__
from . import (
    bench,
    checkpoint,
    demo,
    directions,
    edit,
    fetch,
    info,
    invert,
    invertibility,
    mix,
    run,
    summarise,
    sweep,
    train_encoder,
    train_generator,
)
from ._console import (
    BAD_INPUT,
    EXIT_CODES,
    FAILED,
    INTERRUPTED,
    fail,
    one_line_warnings,
    termination_interrupts,
)
from .options import Parser

COMMANDS = (
    demo,
    invert,
    run,
    summarise,
    sweep,
    invertibility,
    train_generator,
    train_encoder,
    edit,
    directions,
    mix,
    fetch,
    checkpoint,
    bench,
    info,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv`` (of the process where None) and return its exit code."""
    arguments = _parser().parse_args(argv)
    keep_memory()
    try:
        with one_line_warnings(), termination_interrupts():
            return arguments.run(arguments)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone; the interpreter must not try to flush to it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if arguments.debug:
            raise
        if not isinstance(error, SaminvError):
            return fail(f"{type(error).__name__}: {error} (--debug shows where)", FAILED)
        return fail(str(error), BAD_INPUT if isinstance(error, ValueError) else FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="saminv",
        description="GAN inversion and editing: each segment goes to the most editable latent space that fits it.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"saminv {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Parser)
    for module in COMMANDS:
        module.add(commands)
    return parser

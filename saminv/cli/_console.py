"""What all commands share: their parser, exit codes, messages of one line, and how they are interrupted."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

FAILED, BAD_INPUT, INCOMPLETE, INTERRUPTED = 1, 2, 3, 130
EXIT_CODES = """exit codes:
  0    done
  1    something failed: the output place, missing weights or packages
  2    bad input: a wrong option, an unreadable picture or file
  130  interrupted by Ctrl-C; of an inversion, what there is has been saved
"""


def command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], description: str, epilog: str = EXIT_CODES
) -> argparse.ArgumentParser:
    """Add a sub-command; the first sentence of its description is its help."""
    parser = commands.add_parser(
        name,
        help=description.split(".")[0].lower(),
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=run)
    return parser


def command_group(commands: Any, name: str, help: str, description: str, title: str, **options: Any) -> Any:
    """Add a sub-command that has sub-commands of its own; returns where they are added."""
    parser = commands.add_parser(
        name,
        help=help,
        description=description,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser.add_subparsers(title=f"{title}s", required=True, metavar=title.upper(), **options)


def positive(text: str) -> int:
    """A whole number from 1 up, as an option."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def fail(message: str, code: int) -> int:
    """Tell what is wrong, and return the exit code."""
    tell(message)
    return code


def tell(message: str) -> None:
    """Print a message of one line on the standard error."""
    print(f"saminv: {one_line(message)}", file=sys.stderr)


def one_line(message: object) -> str:
    """A message without line breaks."""
    return " ".join(str(message).split())


def on_terminal() -> bool:
    """Whether somebody sees progress bars."""
    return sys.stderr.isatty()


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Print each warning once, as one line without its place in the source."""

    def show(message: Any, *_: Any) -> None:
        tell(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does, so that a command that is told to end keeps what it has."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    # Only the main thread may set handlers, and one that somebody else has set is left alone.
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

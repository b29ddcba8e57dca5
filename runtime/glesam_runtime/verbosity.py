"""Decide how much a program says beside its results, and print notes and details on stderr.

A program sets the level once, from --verbose and --quiet. Python code that uses this package as a
library leaves it at the default.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum

from glesam_runtime.errors import InputError
from glesam_runtime.terminal_text import message_line


class Verbosity(IntEnum):
    """How much a program says on stderr; errors and warnings are always said."""

    QUIET = 0
    NORMAL = 1
    """Notes, and progress on a terminal."""
    VERBOSE = 2
    """Also what runs and how long it takes."""


_level = Verbosity.NORMAL
_debug = False


def set_verbosity(*, verbose: bool, quiet: bool, debug: bool) -> None:
    """Set the level of this process, and whether an error shows its traceback.

    Raises:
        InputError: `verbose` and `quiet` are both asked for.
    """
    global _level, _debug
    _debug = debug
    if verbose and quiet:
        raise InputError("--verbose and --quiet exclude each other; leave out one")
    _level = Verbosity.VERBOSE if verbose else Verbosity.QUIET if quiet else Verbosity.NORMAL


def is_debug() -> bool:
    """Return whether an error shows its traceback."""
    return _debug


def is_quiet() -> bool:
    """Return whether notes and progress are off."""
    return _level is Verbosity.QUIET


def shows_progress() -> bool:
    """Return whether to show progress bars: stderr is a terminal and --quiet is not given."""
    return not is_quiet() and sys.stderr.isatty()


def print_note(text: str) -> None:
    """Print `note: ...` on stderr as one line, unless --quiet is given."""
    if not is_quiet():
        print("note:", message_line(text), file=sys.stderr)


def print_warning(text: str) -> None:
    """Print `warning: ...` on stderr as one line, also with --quiet."""
    print("warning:", message_line(text), file=sys.stderr)


def print_progress(text: str) -> None:
    """Print a line about the progress of the work on stderr, unless --quiet is given."""
    if not is_quiet():
        print(message_line(text), file=sys.stderr, flush=True)


def print_detail(text: str) -> None:
    """Print `detail: ...` on stderr as one line, if --verbose is given."""
    if _level is Verbosity.VERBOSE:
        print("detail:", message_line(text), file=sys.stderr, flush=True)


@contextmanager
def timed_detail(what: str) -> Iterator[None]:
    """Print how long the block took, if --verbose is given."""
    start = time.perf_counter()
    yield
    print_detail(f"{what}: {time.perf_counter() - start:.2f} s")


def spell_seconds(seconds: Mapping[str, float]) -> str:
    """Return the seconds of steps as text: "read 0.01, encoder 0.52 s"."""
    return ", ".join(f"{step} {value:.3f}" for step, value in seconds.items()) + " s"

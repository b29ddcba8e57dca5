"""Questions about paths that a user names, answered without an exception for odd paths."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from glesam_runtime.errors import InputError

if TYPE_CHECKING:
    from glesam_runtime.limits import Limit

STANDARD_INPUT = frozenset(("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"))
"""The arguments that mean standard input."""

_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def exists(path: Path) -> bool:
    """Return whether a path exists; unlike Path.exists it does not raise for a long name."""
    try:
        path.stat()
    except (OSError, ValueError):  # ValueError: a null character
        return False
    return True


def resolved(path: Path) -> Path:
    """Return a path without links; unlike Path.resolve it does not raise for a loop of links."""
    return Path(os.path.realpath(path))


def refuse_special(path: str | os.PathLike[str]) -> None:
    """Refuse a file whose reading can wait or go on for ever.

    Raises:
        InputError: the path is a FIFO, a socket or a device.
    """
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return  # the reader reports it
    for matches, kind in _KINDS:
        if matches(mode):
            raise InputError(f"{path}: {kind}, but images are read from regular files only")


def read_standard_input(argument: str, limit: Limit, what: str) -> bytes:
    """Read standard input to its end.

    Args:
        argument: the argument that asks for it, for messages.
        limit: the largest number of bytes.
        what: what is expected, such as "an image".

    Raises:
        InputError: standard input is closed or a terminal, or has more bytes.
    """
    if sys.stdin is None:
        raise InputError(f"{argument}: standard input is closed; pipe {what} into it")
    if sys.stdin.isatty():
        raise InputError(f"{argument}: standard input is a terminal; pipe {what} into it")
    content = sys.stdin.buffer.read(limit.value + 1)
    limit.check(len(content), f"{argument}: standard input is too long")
    return content

"""Questions about paths that a user names, answered without an exception for odd paths."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from glesam_runtime.errors import InputError
from glesam_runtime.limits import JSON_BYTES

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


def read_json_file(path: Path) -> bytes:
    """Return the content of a JSON file.

    Raises:
        OSError: the file is missing or cannot be read.
        InputError: it is a FIFO, a socket or a device, or too long.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a folder raises an OSError
        raise InputError(f"{path}: not a regular file")
    with path.open("rb") as file:
        content = file.read(JSON_BYTES.value + 1)
    JSON_BYTES.check(len(content), f"{path}: the JSON is too long")
    return content


def refuse_named_fifo(path: Path) -> None:
    """Refuse a FIFO that has a name, because opening it waits for a writer.

    A pipe that a shell opened, as in `<(program)` and `program |`, has none.

    Raises:
        InputError: the path is such a FIFO.
    """
    with suppress(OSError, ValueError):
        if stat.S_ISFIFO(resolved(path).lstat().st_mode):
            raise InputError(f"{path}: a FIFO, a file is needed")


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

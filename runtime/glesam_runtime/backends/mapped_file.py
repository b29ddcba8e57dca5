"""Give back the memory of a mapped file while an engine reads it, and afterwards.

OpenVINO maps a graph's weights and packs each of them into a copy in the layout of its kernels. The
mapped pages count as this process's memory although nothing reads them again, so a float32 model
takes its size twice (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_MADV_DONTNEED = 4
"""Linux's number. A dropped page is read from the file again when it is needed."""
_SECONDS = 0.05
"""Time between two drops while an engine reads the file."""


@contextmanager
def pages_given_back(path: Path | None) -> Iterator[None]:
    """Drop the file's mapped pages from this process, again and again, until the block ends.

    Only mappings that nobody can write to are dropped, so no data is lost. Another thread does it,
    because the engine is busy in one call.

    Args:
        path: the file; with None, and on other systems than Linux, nothing is done.
    """
    if path is None or sys.platform != "linux":
        yield
        return
    ended = threading.Event()

    def drop_until_ended() -> None:
        while not ended.wait(_SECONDS):
            drop_pages(path)

    thread = threading.Thread(target=drop_until_ended, name="glesam-pages", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        drop_pages(path)


def drop_pages(path: Path) -> int:
    """Drop the pages of read-only mappings of a file on Linux; return the bytes of the mappings."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    dropped = 0
    for start, end in _read_only_mappings(os.path.realpath(path)):
        if madvise(start, end - start, _MADV_DONTNEED) == 0:
            dropped += end - start
    return dropped


def _read_only_mappings(path: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of each mapping of a file that cannot be written to."""
    try:
        lines = _MAPS.read_text(errors="surrogateescape").splitlines()
    except OSError:  # a container may hide it; the pages then stay
        return
    for line in lines:
        # 7f0000000000-7f0000001000 r--p 00000000 fe:00 1234    /path of the file
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[5] == path and fields[1].startswith("r--"):
            start, _, end = fields[0].partition("-")
            yield int(start, 16), int(end, 16)

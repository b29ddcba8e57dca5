"""End a local Ray cluster whose driver is gone, and report a driver that ended without a word.

Ray ties its two servers to the driver. It does not tie its agents, nor the workers that are just
starting: after SIGKILL they run on for ever. And if a server dies, Ray ends the driver's process
without an error that Python could report. So a driver starts this file as a process of its own,
which waits until the driver says that it ends, or is gone. It needs /proc, so it exists on Linux
only.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FAREWELL = b"end"
_PROCESSES = Path("/proc")
_QUIET_SECONDS, _MOST_SECONDS = 3.0, 30.0
_LOST = (
    "error: Ray: the process that works on the job was killed, or Ray's server on this machine "
    "ended; start the same command again, which resumes the job\n"
)


@contextmanager
def watched(*, owns_cluster: bool) -> Iterator[None]:
    """Have another process watch this one until the end of the block.

    Args:
        owns_cluster: whether the cluster is this process's own, so that it ends with it.
    """
    if not _PROCESSES.is_dir():
        yield
        return
    words = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(owns_cluster))]
    # In a session of its own, a signal to the driver's process group does not reach it.
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdin is not None
    try:
        yield
    finally:
        with suppress(OSError):
            process.stdin.write(_FAREWELL)
            process.stdin.close()
        # The watcher outlives the driver, so that nobody waits for it.
        process.returncode = 0


def processes_of(driver: int) -> list[int]:
    """Return the processes of the local cluster that a driver started.

    Ray names a session's folder after the driver's process, and each process of Ray writes its log
    to that folder, from its first moment on.
    """
    session = re.compile(rf"/session_[0-9_-]+_{driver}/")
    found = []
    for folder in _PROCESSES.iterdir():
        if folder.name.isdecimal() and int(folder.name) not in (driver, os.getpid()):
            with suppress(OSError):
                if any(session.search(_target(each)) for each in (folder / "fd").iterdir()):
                    found.append(int(folder.name))
    return found


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # closed since it was listed
        return ""


def _watch(driver: int, owns_cluster: bool) -> None:
    """Wait for the driver's end, report it if the driver did not, and end its cluster."""
    farewell = sys.stdin.buffer.read()
    if farewell != _FAREWELL:
        with suppress(OSError):
            sys.stderr.write(_LOST)
            sys.stderr.flush()
    # Whoever reads the driver's errors need not wait for this process.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    if not owns_cluster:
        return
    start = quiet = time.monotonic()
    while time.monotonic() - quiet < _QUIET_SECONDS:
        for process in processes_of(driver):
            quiet = time.monotonic()
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        if time.monotonic() - start > _MOST_SECONDS:
            return
        time.sleep(0.1)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), sys.argv[2] == "1")

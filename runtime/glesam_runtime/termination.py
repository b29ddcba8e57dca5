"""SIGTERM ends a program as Ctrl-C does, within 5 seconds. Schedulers and containers send it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

TERMINATED = 143
"""The exit code: 128 + SIGTERM."""

_PATIENCE = 4.0
"""Seconds for the program to end by itself."""

partial_work: set[Path] = set()
"""The temporary files and folders that this process has in work; `staging` enters them."""


class Termination:
    """Handles SIGTERM as whatever handles SIGINT at that time would.

    Ctrl-C raises KeyboardInterrupt, so partial files are removed on the way out. Python handles
    signals between two operations only, and an operation of an engine can take minutes: a thread
    removes partial files and ends the process if it is still there after 4 seconds. A handler that
    takes its time, such as that of a training that completes its iteration, is waited for.
    """

    seen = False
    """Whether SIGTERM has come."""

    def install(self) -> None:
        """Handle SIGTERM, unless the process was started with SIGTERM ignored."""
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return
        signal.signal(signal.SIGTERM, self._handle)
        try:
            woken, waking = socket.socketpair()
        except OSError:  # too many open files: what the program does next reports it
            return
        waking.setblocking(False)
        # Python writes the number of each signal here at once, whatever the main thread does.
        signal.set_wakeup_fd(waking.detach(), warn_on_full_buffer=False)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_restore)
        threading.Thread(target=_watch, args=[woken], name="glesam-sigterm", daemon=True).start()

    def _handle(self, _number: int, frame: FrameType | None) -> None:
        if self.seen:
            return  # a second one must not interrupt the removal of partial files
        self.seen = True
        interrupt = signal.getsignal(signal.SIGINT)
        if callable(interrupt):
            interrupt(signal.SIGINT, frame)
        else:  # a shell starts programs in the background with Ctrl-C ignored
            raise KeyboardInterrupt


def _restore() -> None:
    """Let SIGTERM end a forked worker at once, and say nothing of it to the parent's thread."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _watch(woken: socket.socket) -> None:
    """Wait for SIGTERM, and end the process if nothing else does."""
    while signal.SIGTERM not in woken.recv(16):
        pass
    interrupt = signal.getsignal(signal.SIGINT)
    if callable(interrupt) and interrupt is not signal.default_int_handler:
        return
    time.sleep(_PATIENCE)
    for path in list(partial_work):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
    print("error: terminated", file=sys.stderr, flush=True)
    os._exit(TERMINATED)

"""SIGTERM and SIGHUP end a program as Ctrl-C does, within 5 seconds.

Schedulers and containers send SIGTERM, and a terminal or SSH session that closes sends SIGHUP.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that end a program: of a scheduler, and of a terminal or SSH session that closes."""

_PATIENCE = 4.0
"""Seconds for the program to end by itself."""
_QUIET = 1.0
"""Seconds after Ctrl-C in which further ones are ignored; many people press it several times."""

partial_work: set[Path] = set()
"""The temporary files and folders that this process has in work; `staging` enters them."""


class Termination:
    """Handles SIGTERM and SIGHUP as whatever handles SIGINT at that time would.

    Ctrl-C raises KeyboardInterrupt, so partial files are removed on the way out. Python handles
    signals between two operations only, and an operation of an engine can take minutes: a thread
    removes partial files and ends the process if it is still there after 4 seconds. A handler that
    takes its time, such as that of a training that completes its iteration, is waited for.
    """

    def __init__(self) -> None:
        """Handle no signal yet."""
        self.seen = 0
        """The signal that ends the program, SIGTERM or SIGHUP; 0 before it has come."""
        self._quiet_until = 0.0
        self._woken: socket.socket | None = None

    @property
    def exit_code(self) -> int:
        """Return the exit code that shells expect of a program that `seen` ended."""
        return 128 + self.seen

    def install(self) -> None:
        """Handle the signals, except those that the process was started to ignore."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)
        handled = [each for each in _ENDING if signal.getsignal(each) is signal.SIG_DFL]
        for number in handled:
            signal.signal(number, self._end)
        try:
            woken, waking = socket.socketpair()
        except OSError:  # too many open files: what the program does next reports it
            return
        waking.setblocking(False)
        # The thread may end before the process, and Python complains of a pipe that nobody reads.
        self._woken = woken
        # Python writes the number of each signal here at once, whatever the main thread does.
        signal.set_wakeup_fd(waking.detach(), warn_on_full_buffer=False)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._restore)
        watch = threading.Thread(
            target=self._watch, args=[woken, handled], name="glesam-signals", daemon=True
        )
        watch.start()

    def expect_repeat(self) -> None:
        """Let the next Ctrl-C interrupt, because the last one was lost."""
        self._quiet_until = 0.0

    def settle(self) -> None:
        """Ignore further signals, because the exit code is decided.

        Python restores their default, which ends the process with another code, before it exits.
        """
        if self.seen:
            for number in (*_ENDING, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, but not again while the first one removes partial files."""
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET
            raise KeyboardInterrupt

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self.seen:
            return  # a second one must not interrupt the removal of partial files
        self.seen = number
        interrupt = signal.getsignal(signal.SIGINT)
        if callable(interrupt):
            interrupt(signal.SIGINT, frame)
        else:  # a shell starts programs in the background with Ctrl-C ignored
            raise KeyboardInterrupt

    def _restore(self) -> None:
        """Let signals end a forked worker at once, and say nothing of it to the parent's thread."""
        signal.set_wakeup_fd(-1)
        for number in _ENDING:
            if signal.getsignal(number) == self._end:
                signal.signal(number, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) == self._interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _watch(self, woken: socket.socket, handled: list[signal.Signals]) -> None:
        """Wait for a signal that ends the program, and end it if nothing else does."""
        while (number := next((each for each in woken.recv(16) if each in handled), 0)) == 0:
            pass
        interrupt = signal.getsignal(signal.SIGINT)
        if callable(interrupt) and interrupt not in (
            signal.default_int_handler,
            self._interrupt,
        ):
            return
        time.sleep(_PATIENCE)
        for path in list(partial_work):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()
        with suppress(OSError):  # the terminal may be gone
            print("error: terminated", file=sys.stderr, flush=True)
        os._exit(128 + number)


def was_interrupted(error: BaseException | None) -> bool:
    """Return whether Ctrl-C caused an error, as the ImportError of a library that was loading."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


@contextmanager
def interruptible_import() -> Iterator[None]:
    """Raise KeyboardInterrupt where Ctrl-C made an import fail: the library is not missing.

    Compiled modules turn what interrupts their initialization into an ImportError.
    """
    try:
        yield
    except ImportError as error:
        if was_interrupted(error):
            raise KeyboardInterrupt from error
        raise

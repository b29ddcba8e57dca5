"""Take turns on an engine that runs one call at a time; a prompt goes before the next encode."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext


class Turns:
    """A lock with two classes of threads: an urgent one waits for the running call only."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy = False
        self._urgent = 0

    @staticmethod
    def of(turns: Turns | None, *, urgent: bool) -> AbstractContextManager[None]:
        """Return a context that holds the engine, or one that does nothing without turns."""
        return nullcontext() if turns is None else turns.taken(urgent=urgent)

    @contextmanager
    def taken(self, *, urgent: bool) -> Iterator[None]:
        """Wait for the engine and hold it."""
        with self._changed:
            self._urgent += urgent
            self._changed.wait_for(lambda: not self._busy and (urgent or not self._urgent))
            self._urgent -= urgent
            self._busy = True
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

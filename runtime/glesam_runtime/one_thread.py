"""Refuse a second thread while one uses an object."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from glesam_runtime.errors import BusyError

_Object = TypeVar("_Object", bound="OneThread")
_Arguments = ParamSpec("_Arguments")
_Returned = TypeVar("_Returned")


def one_thread_at_a_time(
    call: Callable[Concatenate[_Object, _Arguments], _Returned],
) -> Callable[Concatenate[_Object, _Arguments], _Returned]:
    """Make a method raise `BusyError` while another thread is in such a method of the object.

    Methods that it calls in the same thread may be of this kind too.
    """

    @wraps(call)
    def reserved(self: _Object, /, *args: _Arguments.args, **named: _Arguments.kwargs) -> _Returned:
        with self.reserved():
            return call(self, *args, **named)

    return reserved


class OneThread:
    """An object whose methods with `one_thread_at_a_time` one thread at a time may call."""

    def __init__(self) -> None:
        """Let any thread use the object."""
        self._in_use = threading.RLock()
        """Held during a call. A plain copy of the object has the same lock."""

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Keep the object for this thread until the block ends.

        Raises:
            BusyError: another thread uses it.
        """
        if not self._in_use.acquire(blocking=False):
            raise BusyError(
                "the predictor is in use by another thread; give each thread a predictor of its "
                "own, which share() returns"
            )
        try:
            yield
        finally:
            self._in_use.release()

"""Ending work in other threads soon: Python gives a Ctrl-C to the main thread only."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from glesam_runtime.backends.base import Engine, Value
    from glesam_runtime.manifest import StageName


class Stopped(BaseException):
    """Nobody waits for this work any more. No error: what catches those lets it pass."""


@dataclass(frozen=True)
class Stop:
    """Asked by one thread, noticed by others between two steps of their work."""

    _asked: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        """Have all work end."""
        self._asked.set()

    def check(self) -> None:
        """End here if that was asked for.

        Raises:
            Stopped: it was.
        """
        if self._asked.is_set():
            raise Stopped


@dataclass(frozen=True)
class StoppableEngine:
    """An engine whose every run is a place to stop at."""

    engine: Engine
    stop: Stop

    @property
    def name(self) -> str:
        """The engine's."""
        return self.engine.name

    @property
    def device(self) -> str:
        """The engine's."""
        return self.engine.device

    def describe(self) -> dict[str, str]:
        """The engine's."""
        return self.engine.describe()

    def run(self, stage: StageName, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run one graph, unless all is to stop.

        Raises:
            Stopped: it is.
            BackendError: the engine failed.
        """
        self.stop.check()
        return self.engine.run(stage, inputs)

    def to_host(self, value: Value) -> NDArray[np.float32]:
        """The engine's."""
        return self.engine.to_host(value)

    def share(self) -> StoppableEngine:
        """A share of the engine, to stop with it."""
        return StoppableEngine(self.engine.share(), self.stop)

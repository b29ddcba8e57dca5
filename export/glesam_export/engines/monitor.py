"""How far a build is, from the library's own IProgressMonitor, and a way to stop one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID

from glesam_runtime.backends.tensorrt_api import Api


@contextmanager
def watched(api: Api, what: str) -> Iterator[Any]:
    """Yield a progress monitor for one build, its outermost phases shown on a terminal.

    The library calls it from threads of its own and has no other way to be stopped: Ctrl-C is
    kept until it asks whether to go on.

    Raises:
        KeyboardInterrupt: after the build, where it was asked for meanwhile.
    """
    console = Console(stderr=True)
    stopped = threading.Event()
    bars = Progress(console=console, transient=True, disable=not console.is_terminal)
    try:
        with bars, _interrupts(stopped):
            yield _monitor(api.trt, bars, what, stopped)
    except Exception as error:
        if stopped.is_set():  # a build that was stopped ends in an error of the library's
            raise KeyboardInterrupt from error
        raise
    if stopped.is_set():
        raise KeyboardInterrupt


def _monitor(trt: Any, bars: Progress, what: str, stopped: threading.Event) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """A bar for each phase that is at most one phase deep."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.tasks: dict[str, TaskID] = {}
            self.outermost: set[str] = set()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """A phase of so many steps begins."""
            if parent_phase is None:
                self.outermost.add(phase_name)
            elif parent_phase not in self.outermost:
                return
            self.tasks[phase_name] = bars.add_task(f"{what}: {phase_name}", total=num_steps)

        def phase_finish(self, phase_name: str) -> None:
            """A phase ends."""
            task = self.tasks.pop(phase_name, None)
            if task is not None:
                bars.remove_task(task)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """A step is done; False stops the build."""
            if phase_name in self.tasks:
                bars.update(self.tasks[phase_name], completed=step + 1)
            return not stopped.is_set()

    return Monitor()


@contextmanager
def _interrupts(stopped: threading.Event) -> Iterator[None]:
    """Note Ctrl-C instead of raising it, where this thread may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        stopped.set()

    earlier = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)

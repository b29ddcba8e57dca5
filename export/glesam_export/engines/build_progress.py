"""Shows the progress of an engine build, and stops it on Ctrl-C."""

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
from glesam_runtime.verbosity import shows_progress


@contextmanager
def show_progress(api: Api, name: str) -> Iterator[Any]:
    """Yield an IProgressMonitor for one build; it shows the outer phases on a terminal.

    The library calls the monitor from its own threads, and a build can only be stopped by the
    monitor's answer. Ctrl-C is therefore remembered until the library asks whether to continue.

    Args:
        api: the engine library.
        name: what is built, shown before each phase.

    Raises:
        KeyboardInterrupt: the user pressed Ctrl-C during the build; raised when the build ends.
    """
    stopped = threading.Event()
    bars = Progress(console=Console(stderr=True), transient=True, disable=not shows_progress())
    try:
        with bars, _remember_interrupts(stopped):
            yield _monitor(api.trt, bars, name, stopped)
    except Exception as error:
        if stopped.is_set():  # the library reports a stopped build as an error
            raise KeyboardInterrupt from error
        raise
    if stopped.is_set():
        raise KeyboardInterrupt


def _monitor(trt: Any, bars: Progress, name: str, stopped: threading.Event) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Shows a bar for each outermost phase and for each phase directly inside one."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.tasks: dict[str, TaskID] = {}
            self.outermost: set[str] = set()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Start the bar of a phase that has this many steps."""
            if parent_phase is None:
                self.outermost.add(phase_name)
            elif parent_phase not in self.outermost:
                return
            self.tasks[phase_name] = bars.add_task(f"{name}: {phase_name}", total=num_steps)

        def phase_finish(self, phase_name: str) -> None:
            """Remove the bar of a finished phase."""
            task = self.tasks.pop(phase_name, None)
            if task is not None:
                bars.remove_task(task)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Advance a phase's bar; return False to stop the build."""
            if phase_name in self.tasks:
                bars.update(self.tasks[phase_name], completed=step + 1)
            return not stopped.is_set()

    return Monitor()


@contextmanager
def _remember_interrupts(stopped: threading.Event) -> Iterator[None]:
    """Set `stopped` on Ctrl-C instead of raising, if this is the main thread.

    Python allows only the main thread to change signal handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def remember(number: int, frame: FrameType | None) -> None:
        stopped.set()

    earlier = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)

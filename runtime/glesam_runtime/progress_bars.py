"""Show progress bars on stderr: for the images, and for the points of everything-mode."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from glesam_runtime.verbosity import shows_progress

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Result = TypeVar("Result")


class Bars(Protocol):
    """The bars of a run. Several threads may call `points`."""

    def images(self, results: Iterable[Result], count: int) -> Iterable[Result]:
        """Return the results; show how many of them were taken if there are several."""

    def points(self, image: str, done: int, total: int) -> None:
        """Show how many points of the grids over an image are done."""


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Yield the bars of a run. They are shown if stderr is a terminal and --quiet is not given."""
    if not shows_progress():
        yield _NoBars()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # Rich redirects stdout to stderr, which is wrong if stdout goes to a file.
    lines = sys.stdout.isatty()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=lines) as shown:
        yield _RichBars(shown)


class _NoBars:
    def images(self, results: Iterable[Result], count: int) -> Iterable[Result]:
        """Return the results."""
        return results

    def points(self, image: str, done: int, total: int) -> None:
        """Show nothing."""


class _RichBars:
    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def images(self, results: Iterable[Result], count: int) -> Iterable[Result]:
        """Return the results, with a bar if there are several."""
        if count < 2:
            return results
        return self._shown.track(results, total=count, description="images")

    def points(self, image: str, done: int, total: int) -> None:
        """Show a bar for the image until all of its points are done."""
        from glesam_runtime.terminal_text import printable

        with self._lock:
            if image not in self._tasks:
                what = f"points of {printable(image)}"
                self._tasks[image] = self._shown.add_task(what, total=total)
            self._shown.update(self._tasks[image], completed=done)
            if done == total:
                self._shown.remove_task(self._tasks.pop(image))

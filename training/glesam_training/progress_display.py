"""Show the progress of a training on stderr: a bar in a terminal, lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from glesam_runtime.verbosity import print_progress, shows_progress

LINE_EVERY = 10.0
"""Seconds between two lines of a log."""


class ShowProgress(Protocol):
    """A function of the step's name, the amount done, its total and the recent mean losses."""

    def __call__(self, step: str, done: int, total: int, losses: Mapping[str, float]) -> object:
        """Show the progress."""


@contextmanager
def progress_display() -> Iterator[ShowProgress]:
    """Yield a function that shows the progress of one step after another."""
    if not shows_progress():
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bars:
        tasks = {}

        def show(step: str, done: int, total: int, losses: Mapping[str, float]) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total, losses="")
            bars.update(tasks[step], completed=done)
            if losses:
                bars.update(tasks[step], losses=_spell(losses))

        yield show


class _Lines:
    """Print a line at most every `LINE_EVERY` seconds, and one at the end of each step."""

    def __init__(self) -> None:
        self.last = 0.0
        self.began: dict[str, float] = {}

    def __call__(self, step: str, done: int, total: int, losses: Mapping[str, float]) -> None:
        now = time.monotonic()
        began = self.began.setdefault(step, now)
        if done < total and now - self.last < LINE_EVERY:
            return
        self.last = now
        line = f"{step:<12} {done:>6} of {total}  {now - began:6.0f} s  {_spell(losses)}"
        print_progress(line.rstrip())


def _spell(losses: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in losses.items())

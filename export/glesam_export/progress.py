"""Says what long work is under way, on stderr: a spinner on a terminal, a line when done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

_console = Console(stderr=True, highlight=False)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Show `what` while the block runs, and how long it took."""
    start = time.perf_counter()
    with _console.status(what):
        yield
    _console.print(f"{what:<44} {time.perf_counter() - start:7.1f} s")

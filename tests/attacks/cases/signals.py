"""Signals: SIGTERM and SIGINT in the middle of a run, one and several."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from ..case import Case, Place


def _many(*options: str, width: int = 600) -> Callable[[Place], list[Any]]:
    """Return the command of 60 images, which takes long enough to be interrupted."""

    def make(place: Place) -> list[Any]:
        image = place.photo(width=width, height=width)
        images = [image.with_name(f"{n}.png") for n in range(60)]
        for path in images:
            os.link(image, path)
        return [*images, *options, *place.engine()]

    return make


def _send(*signals: int) -> Callable[[int, Place], None]:
    """Send signals to the program once it has written its first file."""

    def during(pid: int, place: Place) -> None:
        end = time.monotonic() + 15
        while not (place.out.is_dir() and any(place.out.iterdir())):
            assert time.monotonic() < end, "the program writes nothing"
            time.sleep(0.01)
        for number in signals:
            os.kill(pid, number)
            time.sleep(0.005)

    return during


def _sent(name: str, make: Callable[[Place], list[Any]], *signals: int, **expected: Any) -> Case:
    return Case(
        "signal", name, make, during=_send(*signals), writes=True, separate=True, **expected
    )


_POINTS = ("--points", "9,9")
_GRID = ("--everything", "--points-per-side", "8")
_TERMINATED: dict[str, Any] = {"codes": (143,), "says": "terminated"}
_INTERRUPTED: dict[str, Any] = {"codes": (130,), "says": "interrupted"}
CASES = [
    _sent("SIGTERM", _many(*_POINTS), signal.SIGTERM, **_TERMINATED),
    _sent("SIGTERM, --json", _many(*_POINTS, "--json"), signal.SIGTERM, **_TERMINATED),
    _sent(
        "SIGTERM, one image at a time",
        _many(*_POINTS, "--in-flight", "1"),
        signal.SIGTERM,
        **_TERMINATED,
    ),
    _sent(
        "SIGTERM, three streams", _many(*_POINTS, "--streams", "3"), signal.SIGTERM, **_TERMINATED
    ),
    _sent("SIGTERM, --everything", _many(*_GRID), signal.SIGTERM, **_TERMINATED),
    _sent("SIGTERM five times", _many(*_POINTS), *[signal.SIGTERM] * 5, **_TERMINATED),
    _sent("SIGINT", _many(*_POINTS), signal.SIGINT, **_INTERRUPTED),
    _sent("SIGINT, --everything", _many(*_GRID), signal.SIGINT, **_INTERRUPTED),
    _sent(
        "SIGTERM after SIGINT",
        _many(*_POINTS),
        signal.SIGINT,
        signal.SIGTERM,
        codes=(130, 143),
        says="interrupted|terminated",
    ),
    _sent(
        "SIGPIPE, which programs ignore",
        _many(*_POINTS),
        signal.SIGPIPE,
        signal.SIGTERM,
        **_TERMINATED,
    ),
]

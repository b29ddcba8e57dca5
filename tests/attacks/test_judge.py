"""The judge finds each fault that a program can have."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .case import Case, Place
from .judge import faults, state_of
from .program import run

pytestmark = pytest.mark.attack


def _allocate(_: Place) -> None:
    assert len(b"x" * (300 << 20)) > 0


def _silence(_: Place) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _half_write(place: Place) -> None:
    place.out.mkdir()
    (place.out / ".a.png.partial-1").touch()


FAULTS: list[tuple[str, Callable[[Place], list[Any]], dict[str, Any]]] = [
    ("exit code 0, not 2", lambda _: ["--version"], {}),
    ("0 lines of errors", lambda _: ["none.png"], {"before": _silence}),
    ("does not say 'nonsense'", lambda _: ["none.png"], {"says": "nonsense"}),
    ("of CPU time", lambda _: ["--version"], {"seconds": 0.0}),
    ("MiB of memory", lambda _: ["--version"], {"before": _allocate}),
    ("was written", lambda _: ["none.png"], {"before": lambda p: (p.cwd / "a").touch()}),
    ("was deleted", lambda p: [p.photo()], {"before": lambda p: (p.inputs / "photo.png").unlink()}),
    ("half-written", lambda _: ["none.png"], {"before": _half_write}),
    ("though the program failed", lambda _: ["none.png"], {"before": _half_write}),
    ("code was executed", lambda _: ["none.png"], {"before": lambda p: p.witness.touch()}),
    ("the program reads", lambda p: p.command(image=p.secret), {}),
    ("control character", lambda _: ["a"], {"before": lambda _: os.write(2, b"\x1b[2J") and None}),
    ("other lines", lambda _: ["a"], {"before": lambda _: os.write(2, b"warning\n") and None}),
    ("Traceback", lambda p: p.command("--debug", image=p.write("a.png", "x")), {}),
    ("exit code 137", lambda _: [], {"before": lambda _: os.kill(os.getpid(), signal.SIGKILL)}),
]


@pytest.mark.parametrize(("fault", "make", "further"), FAULTS, ids=[each[0] for each in FAULTS])
def test_each_fault_is_found(
    fault: str,
    make: Callable[[Place], list[Any]],
    further: dict[str, Any],
    make_place: Callable[[int], Place],
) -> None:
    case = Case("judge", fault, make, **further)
    place = make_place(case.seed)
    arguments, before = case.make(place), state_of(place)
    outcome = run(case, arguments, place)
    assert fault in "\n".join(faults(case, outcome, place, before, state_of(place)))


def test_a_sound_run_has_no_fault(make_place: Callable[[int], Place]) -> None:
    case = Case("judge", "sound", lambda place: place.command(), codes=(0,))
    place = make_place(case.seed)
    arguments, before = case.make(place), state_of(place)
    outcome = run(case, arguments, place)
    assert faults(case, outcome, place, before, state_of(place)) == []
    assert Path(place.out / "photo_mask.png").is_file()

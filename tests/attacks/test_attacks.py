"""Give each hostile input to its program, and judge what the program does."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable

import pytest

from .case import Case, Place
from .cases import FIRST, SECOND
from .judge import faults, state_of
from .program import run

pytestmark = [
    pytest.mark.attack,
    pytest.mark.skipif(sys.platform != "linux", reason="measures programs by Linux's means"),
]


@pytest.mark.parametrize(
    "case",
    [
        *(pytest.param(case, id=case.id) for case in FIRST),
        *(pytest.param(case, id=case.id, marks=pytest.mark.second) for case in SECOND),
    ],
)
def test_attack(
    case: Case, make_place: Callable[[int], Place], record_property: Callable[[str, object], None]
) -> None:
    place = make_place(case.seed)
    arguments = case.make(place)
    before = state_of(place)
    outcome = run(case, arguments, place)
    wrong = faults(case, outcome, place, before, state_of(place))
    record_property("attack", (case.kind, case.name, outcome.seconds, outcome.mebibytes))
    stderr = outcome.stderr[:3000].decode(errors="backslashreplace")
    assert not wrong, "\n".join([*wrong, f"stderr: {stderr}"])


def test_names_are_unique_and_cases_many() -> None:
    names = Counter(case.id for case in [*FIRST, *SECOND])
    assert not [name for name, count in names.items() if count > 1]
    assert len(FIRST) >= 300

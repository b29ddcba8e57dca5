"""Progress bars are shown on a terminal only, and never mix with output."""

from __future__ import annotations

import io
import sys

import pytest

from glesam_runtime import verbosity
from glesam_runtime.progress_bars import progress_bars


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("count", "terminal", "quiet", "shown"),
    [
        (1, True, False, False),
        (3, False, False, False),
        (3, True, True, False),
        (3, True, False, True),
    ],
)
def test_when_it_shows(
    count: int, terminal: bool, quiet: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr = Terminal() if terminal else io.StringIO()
    stdout = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(verbosity, "_level", verbosity.Verbosity(not quiet))
    with progress_bars() as bars:
        for each in bars.images([str(index) for index in range(count)], count):
            print(each)
            bars.points("[a].png", 5, 10)
            bars.points("[a].png", 10, 10)
    assert stdout.getvalue().split() == [str(index) for index in range(count)]
    assert ("images" in stderr.getvalue()) is shown
    assert ("points of [a].png" in stderr.getvalue()) is (terminal and not quiet)

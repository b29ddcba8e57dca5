"""The progress bar is shown for several images on a terminal, and never mixes with output."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from glesam_runtime.output_files import OutputFiles
from glesam_runtime.printing import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def jobs(count: int) -> list[OutputFiles]:
    return [OutputFiles(Path(f"{index}.png"), Path(str(index))) for index in range(count)]


@pytest.mark.parametrize(
    ("count", "terminal", "shown"), [(1, True, False), (3, False, False), (3, True, True)]
)
def test_when_it_shows(
    count: int, terminal: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr = Terminal() if terminal else io.StringIO()
    stdout = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(sys, "stdout", stdout)
    with progress(jobs(count), count) as listed:
        for job in listed:
            print(job.image)
    assert stdout.getvalue().split() == [f"{index}.png" for index in range(count)]
    assert ("images" in stderr.getvalue()) is shown

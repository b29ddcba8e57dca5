"""Make the folders of the cases, and print a summary of them."""

from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..runtime.conftest import make_toy_bundle as make_toy_bundle
from .case import Place

_SHOWN = 5
FAKE_PROGRAMS = ("gs", "gswin32c", "gswin64c", "convert", "magick", "ffmpeg", "sh", "xdg-open")


@pytest.fixture(scope="session")
def sample(make_toy_bundle: Callable[..., Path]) -> Iterator[Path]:
    """Write a small sound bundle, which other users may read too."""
    folder = Path(tempfile.mkdtemp(prefix="glesam-attacks-"))
    folder.chmod(0o755)
    made = make_toy_bundle(folder / "sample")
    for path in made.iterdir():
        path.chmod(0o644)
    yield made
    shutil.rmtree(folder)


@pytest.fixture
def make_place(sample: Path) -> Iterator[Callable[[int], Place]]:
    """Return a function that makes the folder of a case, by its seed."""
    yield lambda seed: _new_place(sample, seed)
    for path in sample.parent.glob("case*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _new_place(sample: Path, seed: int) -> Place:
    root = sample.parent / "case"
    made = Place(root, seed, sample)
    for folder in (root, made.inputs, made.home, made.cwd, root / "tmp", root / "bin"):
        folder.mkdir(mode=0o755)
    made.secret.write_text("secret")
    for name in FAKE_PROGRAMS:
        program = root / "bin" / name
        program.write_text(f"#!/bin/bash\necho {name} >> {made.witness}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return made


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the number of cases by kind, the slowest, and those that take most memory."""
    found = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == "attack"
    ]
    if not found:
        return
    kinds: dict[str, int] = {}
    for kind, *_ in found:
        kinds[kind] = kinds.get(kind, 0) + 1
    line = terminalreporter.write_line
    terminalreporter.section("attacks")
    line(f"{len(found)} cases: " + ", ".join(f"{kinds[kind]} {kind}" for kind in sorted(kinds)))
    for title, column, unit in (("slowest", 2, "s of CPU time"), ("largest", 3, "MiB")):
        for each in sorted(found, key=lambda case: -case[column])[:_SHOWN]:
            line(f"{title}: {each[column]:.2f} {unit}, {each[0]}: {each[1]}")

"""Give each hostile input to its program, and judge what the program does."""

from __future__ import annotations

import shutil
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .case import Case, Place
from .cases import CASES
from .judge import faults, state_of
from .program import run

pytestmark = [
    pytest.mark.attack,
    pytest.mark.skipif(sys.platform != "linux", reason="measures programs by Linux's means"),
]

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
def place(sample: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """Make the folder of a case."""
    case: Case = request.node.callspec.params["case"]
    root = sample.parent / "case"
    made = Place(root, case.seed, sample)
    for folder in (root, made.inputs, made.home, made.cwd, root / "tmp", root / "bin"):
        folder.mkdir(mode=0o755)
    made.secret.write_text("secret")
    for name in FAKE_PROGRAMS:
        program = root / "bin" / name
        program.write_text(f"#!/bin/bash\necho {name} >> {made.witness}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    yield made
    for path in sample.parent.glob("case*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_attack(case: Case, place: Place, record_property: Callable[[str, object], None]) -> None:
    arguments = case.make(place)
    before = state_of(place)
    outcome = run(case, arguments, place)
    wrong = faults(case, outcome, place, before, state_of(place))
    record_property("attack", (case.kind, case.name, outcome.seconds, outcome.mebibytes))
    stderr = outcome.stderr[:3000].decode(errors="backslashreplace")
    assert not wrong, "\n".join([*wrong, f"stderr: {stderr}"])


def test_names_are_unique_and_cases_many() -> None:
    repeated = [name for name, count in Counter(case.id for case in CASES).items() if count > 1]
    assert not repeated
    assert len(CASES) >= 300

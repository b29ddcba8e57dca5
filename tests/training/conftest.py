"""Isolate the training tests from one another."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from glesam_runtime.console import exit_code_of
from glesam_training.cli import app

from ..export.conftest import random_nano
from ..released import Released, write_released

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def own_accelerator() -> None:
    """Forget the mixed precision that an earlier training chose; accelerate refuses another."""
    if accelerate := sys.modules.get("accelerate.state"):
        accelerate.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return write_released(tmp_path_factory.mktemp("released") / "files", random_nano(0, 0.5, 1))


@pytest.fixture
def train(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `glesam-train` in this process; return exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = exit_code_of(app, "glesam-train", [str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run

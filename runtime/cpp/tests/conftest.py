"""Where the programs under test are, and the bundles they run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from glesam_runtime.bundle import builtin_bundle_path


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of the built programs; ctest names it."""
    return Path(os.environ["GLESAM_CPP_PROGRAMS"])


@pytest.fixture(scope="session")
def nano() -> Path:
    """The built-in bundle: SAM, trained."""
    return builtin_bundle_path()


@pytest.fixture(scope="session")
def nano2() -> Path:
    """SAM 2's classes at nano's size, random weights; exported once a build folder."""
    return exported("", "--preset", "nano2", "--random-weights", "0")


@pytest.fixture(scope="session")
def nano_bf16() -> Path:
    """The built-in model typed bfloat16; what its masks lose is not looked at here."""
    return exported("-bf16", "--preset", "nano", "--bf16", "--allow-parity-failure")


def exported(ending: str, *options: str) -> Path:
    """A bundle beside the build folders, made if missing."""
    folder = Path(os.environ["GLESAM_CPP_NANO2"] + ending)
    if not folder.is_dir():
        command = [sys.executable, "-m", "glesam_export", "onnx", *options]
        subprocess.run([*command, "-o", folder], check=True)
    return folder

"""Provide the programs under test and the bundles that they run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from glesam_runtime.bundle import builtin_bundle_path


@pytest.fixture(scope="session")
def programs() -> Path:
    """Return the folder of the built programs, which ctest passes in the environment."""
    return Path(os.environ["GLESAM_CPP_PROGRAMS"])


@pytest.fixture(scope="session")
def nano() -> Path:
    """Return the built-in bundle, a trained SAM."""
    return builtin_bundle_path()


@pytest.fixture(scope="session")
def nano2() -> Path:
    """Return nano2, a small trained SAM 2. It is exported once per build folder."""
    return exported("", "--preset", "nano2")


@pytest.fixture(scope="session")
def nano_released() -> Path:
    """Return the built-in model with the input of the released GleSAM code."""
    return exported("-released", "--preset", "nano", "--input", "released")


@pytest.fixture(scope="session")
def nano_bf16() -> Path:
    """Return the built-in model in bfloat16. Its accuracy is not tested here."""
    return exported("-bf16", "--preset", "nano", "--bf16", "--allow-parity-failure")


@pytest.fixture(scope="session")
def nano_batch3() -> Path:
    """Return the built-in model with graphs that take three images."""
    return exported("-batch3", "--preset", "nano", "--batch", "3")


@pytest.fixture(scope="session")
def nano_dynamic() -> Path:
    """Return the built-in model with graphs that take any number of images."""
    return exported("-dynamic", "--preset", "nano", "--batch", "dynamic")


@pytest.fixture(params=os.environ["GLESAM_CPP_BACKENDS"].split())
def backend(request: pytest.FixtureRequest) -> list[str]:
    """Return a compiled backend and its library, which is that of the Python package."""
    name: str = request.param
    if name == "openvino":
        return [name]
    import onnxruntime

    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*")
    return [name, str(library)]


def exported(ending: str, *options: str) -> Path:
    """Return a bundle beside the build folders, and export it if it is missing."""
    folder = Path(os.environ["GLESAM_CPP_NANO2"] + ending)
    if not folder.is_dir():
        command = [sys.executable, "-m", "glesam_export", "onnx", *options]
        subprocess.run([*command, "-o", folder], check=True)
    return folder

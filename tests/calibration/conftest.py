"""Quantize the built-in nano once, from statistics that are collected once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from glesam_calibration.calibrator import Data, Talk, calibrate, state_folder, take_statistics
from glesam_calibration.quantize import Recipe
from glesam_evaluation.datasets import open_dataset
from glesam_runtime import open_bundle

# As many samples as the command's default: with 6 samples nano in INT8 gets a worst golden mask of
# 0.91 to 0.96 by seed and engine, around the gate of 0.95; with 64 samples 0.975 to 0.985.
DATA = Data((), samples=64, seed=0, truth=open_dataset("scenes:1@2000000"), truth_images=1)
FEW = replace(DATA, samples=6)


@contextmanager
def _silently(_: str) -> Iterator[None]:
    yield


RECIPE = Recipe()
QUIET = Talk(lambda _: None, lambda *_: None, _silently)


@pytest.fixture(scope="session")
def data() -> Data:
    return DATA


@pytest.fixture(scope="session")
def quiet() -> Talk:
    return QUIET


@pytest.fixture(scope="session")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return kept statistics of DATA; tests must not change them, but resume from a copy."""
    folder = tmp_path_factory.mktemp("statistics") / "state"
    take_statistics(open_bundle(), DATA, folder, False, QUIET)
    return folder


@pytest.fixture(scope="session")
def make_quantized(statistics: Path) -> Callable[..., Path]:
    """Quantize the built-in nano into a folder, from the statistics of DATA."""

    def make(folder: Path, recipe: Recipe = RECIPE, talk: Talk = QUIET, **options: object) -> Path:
        state = state_folder(folder)
        if not state.exists():
            shutil.copytree(statistics, state)
        calibrate(open_bundle(), folder, DATA, recipe, talk, resume=True, **options)  # type: ignore[arg-type]
        return folder

    return make


@pytest.fixture(scope="session")
def quantize_few() -> Callable[..., Path]:
    """Calibrate the built-in nano on a few samples. They are too few for its gate, which is off."""

    def make(folder: Path, talk: Talk = QUIET, data: Data = FEW, resume: bool = False) -> Path:
        calibrate(
            open_bundle(), folder, data, RECIPE, talk, resume=resume, allow_parity_failure=True
        )
        return folder

    return make


@pytest.fixture(scope="session")
def few_bundle(quantize_few: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle that was calibrated on a few samples; tests must not change it."""
    return quantize_few(tmp_path_factory.mktemp("few") / "bundle")


@pytest.fixture(scope="session")
def int8_bundle(
    make_quantized: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the built-in nano in INT8; tests must not change it."""
    return make_quantized(tmp_path_factory.mktemp("int8") / "bundle")


@pytest.fixture(scope="session")
def fp8_bundle(
    make_quantized: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the built-in nano in FP8; tests must not change it."""
    recipe = replace(RECIPE, kind="fp8")
    return make_quantized(
        tmp_path_factory.mktemp("fp8") / "bundle", recipe, allow_parity_failure=True
    )

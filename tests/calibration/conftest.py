"""The built-in nano in eight bits, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from glesam_calibration.job import Data, Talk, calibrate
from glesam_calibration.quantize import Recipe
from glesam_evaluation.datasets import open_dataset
from glesam_runtime import open_bundle

DATA = Data((), samples=6, seed=0, truth=open_dataset("scenes:1@2000000"), truth_images=1)


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
def make_quantized() -> Callable[..., Path]:
    """Quantize the built-in nano into a folder."""

    def make(folder: Path, recipe: Recipe = RECIPE, talk: Talk = QUIET, **options: object) -> Path:
        data = options.pop("data", DATA)
        calibrate(open_bundle(), folder, data, recipe, talk, **options)  # type: ignore[arg-type]
        return folder

    return make


@pytest.fixture(scope="session")
def int8_bundle(
    make_quantized: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Read-only."""
    return make_quantized(tmp_path_factory.mktemp("int8") / "bundle")


@pytest.fixture(scope="session")
def fp8_bundle(
    make_quantized: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Read-only."""
    recipe = replace(RECIPE, kind="fp8")
    return make_quantized(
        tmp_path_factory.mktemp("fp8") / "bundle", recipe, allow_parity_failure=True
    )

"""The built wheel with the `cpu` extra alone, as a robot has it (.venv-cpu, made by make)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glesam_evaluation.metrics import iou
from glesam_evaluation.prompting import tight_box
from glesam_training.nano.coins import Coins

pytestmark = pytest.mark.full

ENVIRONMENT = Path(__file__).parents[2] / ".venv-cpu" / "bin"


@pytest.fixture(scope="module", autouse=True)
def environment() -> None:
    if not (ENVIRONMENT / "glesam-run").is_file():
        pytest.fail("no .venv-cpu here; run 'make test-full', which makes it")


def run(program: str, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """A program of the environment, in a folder where no source is to be found."""
    command = [str(ENVIRONMENT / program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


@pytest.mark.parametrize("module", ["torch", "onnx", "cv2", "diffusers", "segment_anything"])
def test_the_environment_has_no_heavy_package(module: str, tmp_path: Path) -> None:
    assert run("python", "-c", f"import {module}", folder=tmp_path).returncode != 0


def test_glesam_run_segments_a_photograph_with_the_built_in_bundle(tmp_path: Path) -> None:
    coins = Coins()[0]
    Image.fromarray(coins.image).save(tmp_path / "photo.png")
    largest = coins.masks[coins.masks.sum((1, 2)).argmax()]
    box = ",".join(f"{value:g}" for value in tight_box(largest))
    done = run("glesam-run", "photo.png", "--box", box, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nano" in done.stderr
    assert "untrained" not in done.stderr
    assert json.loads(done.stdout)
    with Image.open(tmp_path / "photo_mask.png") as picture:
        found = np.asarray(picture) > 0
    assert iou(found, largest) > 0.85
    with Image.open(tmp_path / "photo_overlay.png") as overlay:
        assert overlay.size == (384, 303)


def test_the_wheel_carries_nano(tmp_path: Path) -> None:
    """The bundle with the runtime, the checkpoint with the exporter, 30 MB in all."""
    code = (
        "import glesam_runtime, pathlib; site = pathlib.Path(glesam_runtime.__file__).parents[1];"
        "print((site / 'glesam_export/nano.safetensors').stat().st_size,"
        "sum(f.stat().st_size for f in (site / 'glesam_runtime/nano').iterdir()))"
    )
    done = run("python", "-c", code, folder=tmp_path)
    checkpoint, bundle = map(int, done.stdout.split())
    print(f"nano.safetensors {checkpoint / 1e6:.1f} MB, bundle {bundle / 1e6:.1f} MB")
    assert checkpoint < 12e6
    assert bundle < 25e6


def test_selftest_passes(tmp_path: Path) -> None:
    done = run("glesam-run", "--selftest", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout

"""The built wheel with the `cpu` extra alone, as a robot has it (.venv-cpu, made by make)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


def test_glesam_run_segments_with_the_built_in_bundle(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    done = run("glesam-run", "photo.png", "--points", "80,60", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nano" in done.stderr
    assert "untrained" in done.stderr
    assert json.loads(done.stdout)
    with Image.open(tmp_path / "photo_mask.png") as mask:
        assert mask.size == (160, 120)
        assert set(np.unique(np.asarray(mask))) <= {0, 255}
    with Image.open(tmp_path / "photo_overlay.png") as overlay:
        assert overlay.size == (160, 120)


def test_selftest_passes(tmp_path: Path) -> None:
    done = run("glesam-run", "--selftest", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout

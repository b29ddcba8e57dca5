"""Both distributions work when installed from wheels into clean environments (`make dist`)."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glesam_evaluation.metrics import iou
from glesam_evaluation.prompting import tight_box
from glesam_training.nano.coins import Coins

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / "out" / "dist"
HEAVY = ["torch", "onnx", "cv2", "diffusers", "segment_anything", "glesam_export"]


def wheel(name: str) -> Path:
    found = sorted(WHEELS.glob(f"{name}-*.whl"))
    if len(found) != 1:
        pytest.fail(f"{WHEELS}: {len(found)} wheels of {name}; run 'make dist', which builds one")
    return found[0]


def install(folder: Path, requirement: str) -> Path:
    """Make a virtual environment with a wheel and what it needs; return its `bin`."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "pip", "install", "-q", "--disable-pip-version-check"]
    constraints = ["-c", ROOT / "constraints.txt", "--find-links", WHEELS]
    subprocess.run([*pip, *constraints, requirement], check=True)
    return folder / "bin"


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install what a robot needs: the runtime with ONNX Runtime."""
    folder = tmp_path_factory.mktemp("robot") / "env"
    return install(folder, f"{wheel('glesam_runtime')}[cpu]")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install what a user needs who calibrates and evaluates bundles."""
    folder = tmp_path_factory.mktemp("bench") / "env"
    return install(folder, f"{wheel('glesam_deploy')}[calibration]")


def run(program: Path, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of an environment, in a folder without the sources."""
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def test_the_wheels_hold_what_belongs_to_them() -> None:
    """Check that the runtime has nano's bundle and the exporter its checkpoint, not both."""
    names = {
        name: zipfile.ZipFile(wheel(name)).namelist()
        for name in ("glesam_runtime", "glesam_deploy")
    }
    bundle = {"manifest.json", "encoder.onnx", "enhancer.onnx", "decoder.onnx"}
    assert {f"glesam_runtime/nano/{file}" for file in bundle} < set(names["glesam_runtime"])
    for name in ("nano", "nano2"):
        assert f"glesam_export/{name}.safetensors" in names["glesam_deploy"]
    tops = {name: {file.split("/")[0] for file in files} for name, files in names.items()}
    assert {top for top in tops["glesam_runtime"] if "dist-info" not in top} == {"glesam_runtime"}
    assert "glesam_runtime" not in tops["glesam_deploy"]
    assert wheel("glesam_runtime").stat().st_size < 20e6
    assert wheel("glesam_deploy").stat().st_size < 28e6


def test_a_robot_has_no_heavy_package_and_no_command_that_needs_one(
    robot: Path, tmp_path: Path
) -> None:
    for module in HEAVY:
        assert run(robot / "python", "-c", f"import {module}", folder=tmp_path).returncode != 0
    assert [path.name for path in robot.glob("glesam-*")] == ["glesam-run"]


def test_a_robot_segments_a_photograph_with_the_built_in_bundle(
    robot: Path, tmp_path: Path
) -> None:
    coins = Coins()[0]
    Image.fromarray(coins.image).save(tmp_path / "photo.png")
    largest = coins.masks[coins.masks.sum((1, 2)).argmax()]
    box = ",".join(f"{value:g}" for value in tight_box(largest))
    done = run(robot / "glesam-run", "photo.png", "--box", box, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nano" in done.stderr
    assert "untrained" not in done.stderr
    assert json.loads(done.stdout)
    with Image.open(tmp_path / "photo_mask.png") as picture:
        found = np.asarray(picture) > 0
    assert iou(found, largest) > 0.85
    with Image.open(tmp_path / "photo_overlay.png") as overlay:
        assert overlay.size == (384, 303)


def test_the_self_test_passes_on_a_robot(robot: Path, tmp_path: Path) -> None:
    done = run(robot / "glesam-run", "--selftest", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_degrading_and_evaluating_need_no_torch(bench: Path, tmp_path: Path) -> None:
    assert run(bench / "python", "-c", "import torch", folder=tmp_path).returncode != 0
    Image.fromarray(Coins()[0].image).save(tmp_path / "photo.png")
    low = run(bench / "glesam-degrade", "photo.png", "--level", 2, "-o", "low.png", folder=tmp_path)
    assert low.returncode == 0, low.stderr
    done = run(
        bench / "glesam-evaluate",
        *("nano", "scenes:1", "--prompts", "box", "--conditions", "clear", "--json"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)

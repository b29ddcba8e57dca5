"""Frames in CUDA memory, on a fake GPU that runs the library's own kernels."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import onnxruntime
import pytest
from test_frames import compare_with_python


@pytest.mark.parametrize("bundle", ["nano", "nano2", "nano_released"])
def test_kernels_compute_what_python_does(
    bundle: str, programs: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    compare_with_python(request.getfixturevalue(bundle), programs / "gpu_frames", tmp_path)


@pytest.mark.parametrize("program", ["cuda_frames", "cuda_misuse"])
def test_predictors(program: str, nano: Path, programs: Path) -> None:
    (real,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*")
    library = programs / "libfake_onnxruntime.so"
    backends = os.environ["GLESAM_CPP_BACKENDS"].split()
    done = subprocess.run(
        [programs / program, nano, *([library] if "onnxruntime" in backends else [])],
        env={**os.environ, "GLESAM_REAL_ONNXRUNTIME": str(real)},
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_cudas_compiler_takes_the_kernels(programs: Path) -> None:
    folder = os.environ.get("GLESAM_NVRTC")
    if not folder:
        pytest.skip("GLESAM_NVRTC does not name a folder with libnvrtc; check-cpp downloads it")
    done = subprocess.run(
        [programs / "compile_kernels", "12", "75", "87", "90", "120", "999"],
        env={**os.environ, "LD_LIBRARY_PATH": folder},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    made = dict(line.split(": ") for line in done.stdout.splitlines())
    unknown = made.pop("999")
    assert made == dict.fromkeys(("75", "87", "90", "120"), "machine code")
    assert int(unknown.removeprefix(".target sm_")) >= 120  # PTX for the newest that it knows


def test_a_missing_compiler_is_said(programs: Path) -> None:
    command = [programs / "compile_kernels", "12", "90"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        pytest.skip("this machine has libnvrtc")
    assert done.returncode == 2
    assert "CUDA's compiler, which a frame in CUDA memory needs, cannot be loaded" in done.stderr
    assert done.stderr.count("\n") == 1

"""The example program builds against the installed library and is the one in the documentation."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glesam_runtime import GleSamPredictor

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
DOCUMENT = HERE.parents[2] / "docs/embedding.md"
FLAGS = os.environ["GLESAM_CPP_FLAGS"].split()


def run(*command: str | Path, **options: Any) -> str:
    """Run a command and return its output."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the library with `cmake --install` and return the prefix."""
    prefix = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", os.environ["GLESAM_CPP_BUILD"], "--prefix", prefix)
    return prefix


def segment(program: Path, installed: Path, nano: Path, folder: Path) -> None:
    """Run a built example and compare its mask with Python's."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((130, 90), Image.Resampling.BICUBIC)
    image.save(folder / "image.png")
    libraries = ":".join(map(str, installed.glob("lib*")))
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
    said = run(program, nano, "image.png", "60", "40", cwd=folder, env=environment)
    predictor = GleSamPredictor(nano, backend="openvino")
    predictor.set_image(np.asarray(image))
    masks, scores, _ = predictor.predict([[60, 40]], [1], multimask_output=False)
    assert f"IoU {scores[0]:.3f}" in said
    raw = (folder / "mask.pgm").read_bytes()
    assert raw.startswith(b"P5 130 90 1\n")
    np.testing.assert_array_equal(
        np.frombuffer(raw[-130 * 90 :], np.uint8).reshape(90, 130), masks[0]
    )


def test_by_cmake(installed: Path, nano: Path, tmp_path: Path) -> None:
    run(
        "cmake",
        "-S",
        EXAMPLES,
        "-B",
        tmp_path / "build",
        f"-DCMAKE_PREFIX_PATH={installed}",
        f"-DCMAKE_CXX_FLAGS={' '.join(FLAGS)}",
    )
    run("cmake", "--build", tmp_path / "build")
    segment(tmp_path / "build/segment", installed, nano, tmp_path)


def test_by_pkg_config(installed: Path, nano: Path, tmp_path: Path) -> None:
    (path,) = installed.glob("lib*/**/pkgconfig")
    environment = {**os.environ, "PKG_CONFIG_PATH": str(path)}
    # The .pc file has the prefix of the configuration. Name the folder it was installed to.
    moved = f"--define-variable=prefix={installed}"
    flags = run("pkg-config", moved, "--cflags", "--libs", "glesam", env=environment).split()
    stb = run("pkg-config", "--cflags", "stb").split()
    program = tmp_path / "segment"
    source = EXAMPLES / "segment.cpp"
    run("c++", "-std=c++17", *FLAGS, source, "-o", program, *stb, *flags)
    segment(program, installed, nano, tmp_path)


def test_the_document_shows_the_program() -> None:
    (shown,) = re.findall(r"```cpp\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    source = (EXAMPLES / "segment.cpp").read_text()
    assert shown == source
    assert len([line for line in source.splitlines() if line.strip()]) <= 45

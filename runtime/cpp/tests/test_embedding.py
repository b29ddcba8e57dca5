"""The example program builds against the installed library and is the one in the documentation."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glesam_runtime import GleSamPredictor
from glesam_runtime.input_images import InputImage
from glesam_runtime.output_files import OutputFiles

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
DOCUMENT = HERE.parents[2] / "docs/embedding.md"
FLAGS = os.environ["GLESAM_CPP_FLAGS"].split()


def run(*command: str | Path, **options: Any) -> str:
    """Run a command and return its output."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def moved_installation(build: str | Path, folder: Path) -> Path:
    """Install the library, move it to `folder`/glesam, and return that prefix."""
    run("cmake", "--install", build, "--prefix", folder / "first")
    return (folder / "first").rename(folder / "glesam")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the prefix of the shared library, which was moved after its installation."""
    return moved_installation(os.environ["GLESAM_CPP_BUILD"], tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the static library as the document says, and return its prefix, moved as well."""
    folder = tmp_path_factory.mktemp("static")
    build = folder / "build"
    options = ["-DBUILD_SHARED_LIBS=OFF", "-DGLESAM_TOOLS=OFF", "-DGLESAM_OPENVINO=ON"]
    openvino = Path(importlib.import_module("openvino").__file__ or "").parent
    compiler = ["-DCMAKE_BUILD_TYPE=Debug", f"-DCMAKE_CXX_FLAGS={' '.join(FLAGS)}"]
    source = HERE.parent
    run(
        "cmake",
        "-S",
        source,
        "-B",
        build,
        "-G",
        "Ninja",
        *options,
        *compiler,
        f"-DOpenVINO_DIR={openvino}/cmake",
    )
    run("cmake", "--build", build, "-j", "2")
    return moved_installation(build, folder)


def printed(words: str, prefix: Path, folder: Path) -> None:
    """Run the document's block of commands that contains `words`, in `folder`.

    The document installs to $HOME/glesam.
    """
    blocks = re.findall(r"```bash\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    (block,) = [block for block in blocks if words in block]
    (folder / "runtime").symlink_to(HERE.parents[1])
    shutil.copy(EXAMPLES / "segment.cpp", folder)
    flags = " ".join(FLAGS)
    environment = {
        **os.environ,
        "HOME": str(prefix.parent),
        "CXXFLAGS": flags,
        "PKG_CONFIG_PATH": "",
    }
    run("bash", "-ec", block.replace("c++ ", f"c++ {flags} "), cwd=folder, env=environment)


def segment(program: Path, nano: Path, folder: Path) -> None:
    """Run a built example and compare its mask with Python's."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((130, 90), Image.Resampling.BICUBIC)
    image.save(folder / "image.png")
    said = run(program, nano, "image.png", "60", "40", cwd=folder)
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
    printed("cmake -S runtime/cpp/examples", installed, tmp_path)
    segment(tmp_path / "example/segment", nano, tmp_path)


def test_by_pkg_config(installed: Path, nano: Path, tmp_path: Path) -> None:
    printed("pkg-config --cflags --libs glesam", installed, tmp_path)
    segment(tmp_path / "segment", nano, tmp_path)


def test_static_by_cmake(static: Path, nano: Path, tmp_path: Path) -> None:
    printed("cmake -S runtime/cpp/examples", static, tmp_path)
    segment(tmp_path / "example/segment", nano, tmp_path)


def test_static_by_pkg_config(static: Path, nano: Path, tmp_path: Path) -> None:
    printed("pkg-config --static", static, tmp_path)
    segment(tmp_path / "segment", nano, tmp_path)


def test_the_installation_does_not_contain_its_prefix(installed: Path) -> None:
    texts = [*installed.rglob("*.cmake"), *installed.rglob("*.pc")]
    assert len(texts) >= 5
    for path in texts:
        assert str(installed.parent) not in path.read_text()
    (tool,) = installed.glob("bin/glesam-cpp")
    assert run(tool, "--version").startswith(f"glesam-cpp {_version(installed)}\n")
    assert (installed / "share/licenses/glesam/LICENSE").is_file()


@pytest.mark.parametrize(("boxes", "multimask"), [(1, False), (1, True), (11, False)])
def test_the_tool_names_masks_as_python_does(
    boxes: int, multimask: bool, installed: Path, nano: Path, tmp_path: Path
) -> None:
    source = tmp_path / "photo.png"
    Image.new("RGB", (40, 30)).save(source)
    prompts = [word for i in range(boxes) for word in ("--box", f"{i},{i},{i + 9},{i + 9}")]
    if multimask:
        prompts.append("--multimask")
    (tool,) = installed.glob("bin/glesam-cpp")
    run(tool, source, *prompts, "--bundle", nano, "-o", tmp_path / "out")
    files = OutputFiles(InputImage(source), tmp_path / "out" / "photo")
    count = boxes * (3 if multimask else 1)
    names = {files.mask_path(i, count) for i in range(count)}
    assert set((tmp_path / "out").iterdir()) == names


def test_the_version_is_that_of_python(installed: Path) -> None:
    project = (HERE.parents[1] / "pyproject.toml").read_text()
    assert re.findall(r'^version = "(.*)"', project, flags=re.MULTILINE) == [_version(installed)]


def test_the_library_exports_the_api_only(installed: Path) -> None:
    (library,) = installed.glob("lib*/libglesam.so")
    lines = run("nm", "-D", "-C", "--defined-only", library).splitlines()
    names = [line.split(maxsplit=2)[2] for line in lines]
    assert len(names) >= 15
    assert [name for name in names if not re.match(r"glesam(::|_)", name)] == []
    headers = "".join(path.read_text() for path in (installed / "include").glob("glesam*.h"))
    for name in names:
        (function,) = re.findall(
            r"^(?:glesam::)?(?:(?:Predictor|Context|Follower)::)?(~?\w+)", name
        )
        assert f"{function}(" in headers, name


def _version(installed: Path) -> str:
    """Return GLESAM_VERSION as the C preprocessor sees it."""
    header = (installed / "include/glesam_version.h").read_text()
    return ".".join(re.findall(r"GLESAM_VERSION_[A-Z]+ (\d+)", header))


def test_the_document_shows_the_program() -> None:
    shown = re.findall(r"```cpp\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    source = (EXAMPLES / "segment.cpp").read_text()
    assert source in shown
    assert len([line for line in source.splitlines() if line.strip()]) <= 45

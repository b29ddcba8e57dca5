"""The runtime imports neither torch nor onnx, not even indirectly."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import glesam_runtime

BANNED = {
    "torch",
    "torchvision",
    "onnx",
    "onnxscript",
    "onnx_ir",
    "diffusers",
    "peft",
    "transformers",
    "sam2",
    "segment_anything",
    "glesam_export",
    "glesam_calibration",
    "glesam_training",
}


def modules() -> list[str]:
    found = pkgutil.walk_packages(glesam_runtime.__path__, "glesam_runtime.")
    return [module.name for module in found]


def test_every_module_imports_and_names_nothing_above_it(toy_bundle: Path) -> None:
    assert len(modules()) > 15
    script = (
        "import importlib, importlib.abc, sys\n"
        "banned = set(sys.argv[1].split(','))\n"
        "class Wall(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in banned:\n"
        "            raise ImportError('imported ' + name)\n"
        "sys.meta_path.insert(0, Wall())\n"
        "for name in sys.argv[2].split(','):\n"
        "    importlib.import_module(name)\n"
        "import numpy as np\n"
        "from glesam_runtime import GleSamPredictor\n"
        "predictor = GleSamPredictor(sys.argv[3])\n"
        "predictor.set_image(np.zeros((9, 9, 3), np.uint8))\n"
        "predictor.predict([[1, 1]], [1])\n"
        "assert not banned & set(sys.modules), banned & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, ",".join(BANNED), ",".join(modules()), str(toy_bundle)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


ROOT = Path(__file__).parents[2]
PACKAGES = ("runtime", "evaluation", "calibration", "export", "benchmark", "training", "serving")


@pytest.mark.parametrize("library", ["onnxruntime", "openvino", "openvino_telemetry"])
def test_one_module_imports_the_engines(library: str) -> None:
    """Another import would let the library report home."""
    importing = set()
    for package in PACKAGES:
        for path in (ROOT / package).glob("glesam_*/**/*.py"):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                else:
                    continue
                if any(name.partition(".")[0] == library for name in names):
                    importing.add(path.name)
    assert importing == ({"engine_libraries.py"} if library != "openvino_telemetry" else set())

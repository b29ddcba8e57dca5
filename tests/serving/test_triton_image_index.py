"""A bundle with an image index runs on Triton's models of its stages, which need that input."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glesam_runtime.bundle import builtin_bundle_path, open_bundle
from glesam_runtime.errors import InputError
from glesam_runtime.manifest import IMAGE_INDEX
from glesam_serving.triton.repository import Wanted, warmup_tensors, write_repository
from glesam_serving.triton.stage_calls import StageCalls, predictor_on

from .conftest import triton_utils


@pytest.fixture
def indexed(tmp_path: Path) -> Path:
    """Return the built-in bundle with the manifest of one that takes an image index."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for path in builtin_bundle_path().iterdir():
        os.link(path, folder / path.name)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["requires"] = [IMAGE_INDEX]
    inputs = manifest["stages"]["decoder"]["inputs"]
    inputs.append({"name": IMAGE_INDEX, "dtype": "float32", "shape": ["B"]})
    next(spec for spec in inputs if spec["name"] == "image_embeddings")["shape"][0] = "I"
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_the_decoder_gets_the_index(indexed: Path, tmp_path: Path) -> None:
    """At the warm-up of Triton, and in each call of the model in Python."""
    bundle = open_bundle(indexed)
    warmup = warmup_tensors(bundle, "decoder")
    prompts = len(warmup["point_coords"])
    np.testing.assert_array_equal(warmup[IMAGE_INDEX], np.zeros(prompts, np.float32))
    write_repository(bundle, tmp_path / "r", Wanted(True, "onnxruntime", "cpu", 1, 9, True))
    written = tmp_path / "r/glesam_decoder/warmup" / f"{IMAGE_INDEX}.bin"
    assert written.stat().st_size == 4 * prompts

    passed: dict[str, Any] = {}
    utils = triton_utils(passed, None)
    predictor = predictor_on(indexed, StageCalls(utils, "1"), True)
    predictor.engine.run("decoder", {n: v for n, v in warmup.items() if n != IMAGE_INDEX})
    np.testing.assert_array_equal(passed[IMAGE_INDEX], np.zeros(prompts, np.float32))


def test_a_folder_inside_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    wanted = Wanted(False, "onnxruntime", "cpu", 1, 9, True)
    with pytest.raises(InputError, match="x: a parent folder is a file; choose another path"):
        write_repository(open_bundle(), tmp_path / "file" / "x", wanted)

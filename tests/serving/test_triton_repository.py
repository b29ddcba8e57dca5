"""The text of config.pbtxt against one written by hand, and the files of a repository."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from glesam_runtime.bundle import builtin_bundle_path, load_golden, open_bundle
from glesam_runtime.embedding import ImageEmbedding
from glesam_runtime.errors import InputError
from glesam_runtime.image import Geometry
from glesam_serving.triton.config import to_text
from glesam_serving.triton.embeddings import Embeddings
from glesam_serving.triton.repository import Wanted, write_repository

ENHANCER = """name: "glesam_enhancer"
backend: "onnxruntime"
default_model_filename: "model.onnx"
max_batch_size: 0
input {
  name: "image_embeddings"
  data_type: TYPE_FP32
  dims: [1, 256, 16, 16]
}
output {
  name: "enhanced_embeddings"
  data_type: TYPE_FP32
  dims: [1, 256, 16, 16]
}
instance_group {
  count: 2
  kind: KIND_CPU
}
version_policy {
  all {
  }
}
model_warmup {
  name: "golden"
  batch_size: 0
  inputs {
    key: "image_embeddings"
    value {
      data_type: TYPE_FP32
      dims: [1, 256, 16, 16]
      input_data_file: "image_embeddings.bin"
    }
  }
}
"""
WANTED = Wanted(True, "onnxruntime", "cpu", 2, 64, True)


def test_a_repository_has_the_manifest_s_graphs_and_the_golden_warm_up(tmp_path: Path) -> None:
    bundle = open_bundle()
    assert write_repository(bundle, tmp_path / "r", WANTED) == 1
    assert (tmp_path / "r/glesam_enhancer/config.pbtxt").read_text() == ENHANCER
    for stage in ("encoder", "enhancer", "decoder"):
        graph = (tmp_path / f"r/glesam_{stage}/1/model.onnx").read_bytes()
        assert graph == bundle.graph_path(stage).read_bytes()
    raw = (tmp_path / "r/glesam_enhancer/warmup/image_embeddings.bin").read_bytes()
    golden = load_golden(bundle)
    assert np.array_equal(np.frombuffer(raw, "<f4"), golden["image_embeddings"].ravel())
    raw = (tmp_path / "r/glesam_decoder/warmup/image_embeddings.bin").read_bytes()
    assert np.array_equal(np.frombuffer(raw, "<f4"), golden["enhanced_embeddings"].ravel())
    assert open_bundle(tmp_path / "r/glesam/1/bundle").sha256 == bundle.sha256
    decoder = (tmp_path / "r/glesam_decoder/config.pbtxt").read_text()
    assert 'name: "point_coords"\n  data_type: TYPE_FP32\n  dims: [-1, -1, 2]' in decoder
    assert not list((tmp_path / "r").glob("*/.*"))


def test_a_batch_of_any_size_becomes_triton_s_dynamic_batching(tmp_path: Path) -> None:
    """The manifest alone decides it, so a copy whose manifest says so is enough."""
    shutil.copytree(builtin_bundle_path(), tmp_path / "b")
    manifest = json.loads((tmp_path / "b/manifest.json").read_text())
    manifest["target"]["batch"] = "dynamic"
    for stage in ("encoder", "enhancer"):
        record = manifest["stages"][stage]
        for spec in (*record["inputs"], *record["outputs"]):
            spec["shape"][0] = "N"
    (tmp_path / "b/manifest.json").write_text(json.dumps(manifest))
    write_repository(open_bundle(tmp_path / "b"), tmp_path / "r", WANTED)
    text = (tmp_path / "r/glesam_enhancer/config.pbtxt").read_text()
    assert "max_batch_size: 8\n" in text
    assert "dynamic_batching {\n  max_queue_delay_microseconds: 500\n}\n" in text
    assert text.count("dims: [256, 16, 16]") == 3
    assert "dims: [1," not in text
    assert "max_batch_size: 0\n" in (tmp_path / "r/glesam_decoder/config.pbtxt").read_text()


def test_versions_stand_beside_each_other_and_others_are_refused(tmp_path: Path) -> None:
    shutil.copytree(builtin_bundle_path(), tmp_path / "b")
    manifest = json.loads((tmp_path / "b/manifest.json").read_text())
    manifest["provenance"]["weights"] = "again"
    (tmp_path / "b/manifest.json").write_text(json.dumps(manifest))
    other = open_bundle(tmp_path / "b")
    repository = tmp_path / "r"
    assert write_repository(open_bundle(), repository, WANTED) == 1
    with pytest.raises(InputError, match="holds this bundle already, as version 1"):
        write_repository(open_bundle(), repository, WANTED)
    for wanted, message in (
        (Wanted(True, "onnxruntime", "cpu", 3, 64, True), "has another configuration"),
        (Wanted(False, "onnxruntime", "cpu", 2, 64, True), "holds glesam, glesam_decoder"),
    ):
        with pytest.raises(InputError, match=message):
            write_repository(other, repository, wanted)
    assert write_repository(other, repository, WANTED) == 2
    assert sorted(path.name for path in (repository / "glesam").iterdir()) == [
        *("1", "2", "config.pbtxt"),
    ]
    (tmp_path / "foreign" / "photos").mkdir(parents=True)
    with pytest.raises(InputError, match="holds photos, which is no model"):
        write_repository(other, tmp_path / "foreign", WANTED)


def test_text_format_escapes_and_nests() -> None:
    message = {"a": 'quote " and \\', "b": True, "c": {"d": [1, 2]}, "e": [{"f": 1}, {"f": 2}]}
    assert to_text(message) == (
        'a: "quote \\" and \\\\"\nb: true\nc {\n  d: [1, 2]\n}\ne {\n  f: 1\n}\ne {\n  f: 2\n}\n'
    )


def test_embeddings_are_kept_within_their_bytes_and_the_used_ones_stay() -> None:
    def embedding() -> ImageEmbedding:
        features = {"image_embeddings": np.zeros((1, 1, 5, 5), np.float32)}  # 100 bytes
        return ImageEmbedding(features, Geometry(80, (80, 80), (9, 9)), "0" * 64, True)

    kept = Embeddings(250)
    kept.put("a", embedding())
    kept.put("b", embedding())
    assert kept.get("a") is not None
    kept.put("c", embedding())
    assert (kept.get("b"), kept.size) == (None, 200)
    assert kept.get("a") is not None
    kept.put("c", embedding())
    assert kept.size == 200
    small = Embeddings(99)
    small.put("a", embedding())
    assert (small.get("a"), small.size) == (None, 0)

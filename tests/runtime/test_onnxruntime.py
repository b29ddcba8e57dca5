"""ONNX Runtime caches graphs on disk, runs in threads, and refuses wrong options."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from msgspec.structs import replace

from glesam_calibration import graph_files
from glesam_runtime import BackendError, open_bundle
from glesam_runtime.backends.loading import load_engine
from glesam_runtime.backends.onnxruntime import session_options
from glesam_runtime.bundle import Bundle, file_ref
from glesam_runtime.compare import relative_l2
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.errors import InputError
from glesam_runtime.selftest import run_selftest


def test_an_optimised_graph_is_kept(nano_bundle: Path, tmp_path: Path) -> None:
    bundle, kept = open_bundle(nano_bundle), EngineOptions(cache=tmp_path / "kept")
    image = {"image": np.random.default_rng(0).normal(size=(1, 3, 256, 256)).astype(np.float32)}
    results = []
    for options in (EngineOptions(), kept, kept):  # as it is, written, read
        engine = load_engine(bundle, "onnxruntime", stages=["encoder"], options=options)
        results.append(engine.to_host(engine.run("encoder", image)["image_embeddings"]))
    for found in results[1:]:
        np.testing.assert_array_equal(found, results[0])
    (folder,) = kept.cache.iterdir()  # type: ignore[union-attr]
    assert folder.name.startswith("onnxruntime-encoder-")
    assert {path.name for path in folder.iterdir()} == {
        "graph.onnx",
        "graph.onnx.data",
        "record.json",
    }
    graph = onnx.load(folder / "graph.onnx", load_external_data=False).graph
    assert any(node.domain.startswith("com.microsoft") for node in graph.node), "fused by itself"
    assert run_selftest(bundle, "onnxruntime", options=kept).passed
    assert len(list(folder.parent.iterdir())) == 3


def test_a_cache_that_cannot_be_written(toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file, --cache needs a folder"):
        load_engine(
            open_bundle(toy_bundle), "onnxruntime", options=EngineOptions(cache=tmp_path / "file")
        )


def test_options() -> None:
    assert session_options(EngineOptions(threads=3)).intra_op_num_threads == 3
    assert not session_options(EngineOptions()).enable_mem_pattern


def test_precision_is_that_of_the_graphs(toy_bundle: Path) -> None:
    with pytest.raises(BackendError, match=r"onnxruntime does not support --precision.*: openvino"):
        load_engine(open_bundle(toy_bundle), "onnxruntime", options=EngineOptions(precision="bf16"))


def test_a_share_is_the_engine_itself(toy_bundle: Path) -> None:
    """Sessions run in many threads at once; each run has a binding of its own."""
    engine = load_engine(open_bundle(toy_bundle), "onnxruntime", stages=["encoder"])
    assert engine.share() is engine


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_what_is_kept_is_of_the_weights_beside_a_graph(
    backend: str, nano_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that the cache distinguishes graphs that differ only in their external weights."""
    monkeypatch.setattr(graph_files, "EXTERNAL_DATA_FROM", 1000)
    source, folders = open_bundle(nano_bundle), (tmp_path / "first", tmp_path / "second")
    folders[0].mkdir()
    path = folders[0] / "enhancer.onnx"
    data = graph_files.save_graph(ir.load(source.graph_path("enhancer")), path)
    assert data is not None
    stage = replace(source.manifest.stages["enhancer"], graph=file_ref(path), data=file_ref(data))
    shutil.copytree(*folders)
    weights = folders[1] / data.name
    (np.fromfile(weights, np.float32) * np.float32(1.1)).tofile(weights)
    options = EngineOptions(cache=tmp_path / "kept")
    given = np.random.default_rng(0).normal(size=(1, 256, 16, 16)).astype(np.float32)
    results = []
    for folder in folders:
        made = replace(stage, data=file_ref(folder / data.name))
        manifest = replace(source.manifest, stages={**source.manifest.stages, "enhancer": made})
        bundle, answers = Bundle(folder, manifest, ""), []
        for how in (EngineOptions(), options, options):  # as it is, kept, read
            engine = load_engine(bundle, backend, stages=["enhancer"], options=how)
            found = engine.run("enhancer", {"image_embeddings": given})
            answers.append(engine.to_host(found["enhanced_embeddings"]))
        for found_kept in answers[1:]:
            assert relative_l2(found_kept, answers[0]) < 1e-6
        results.append(answers[0])
    assert relative_l2(results[1], results[0]) > 1e-3

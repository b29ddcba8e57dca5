"""ONNX Runtime's options: what is kept on disk, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from glesam_runtime import BackendError, open_bundle
from glesam_runtime.backends import load_engine
from glesam_runtime.backends.base import EngineOptions
from glesam_runtime.backends.onnxruntime_session import session_options
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
    assert {path.name for path in folder.iterdir()} == {"graph.onnx", "graph.onnx.data"}
    graph = onnx.load(folder / "graph.onnx", load_external_data=False).graph
    assert any(node.domain.startswith("com.microsoft") for node in graph.node), "fused by itself"
    assert run_selftest(bundle, "onnxruntime", options=kept).passed
    assert len(list(folder.parent.iterdir())) == 3


def test_a_cache_that_cannot_be_written(toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a parent of it is a file"):
        load_engine(
            open_bundle(toy_bundle), "onnxruntime", options=EngineOptions(cache=tmp_path / "file")
        )


def test_options() -> None:
    assert session_options(EngineOptions(threads=3)).intra_op_num_threads == 3
    assert not session_options(EngineOptions()).enable_mem_pattern


def test_precision_is_that_of_the_graphs(toy_bundle: Path) -> None:
    with pytest.raises(BackendError, match="'bf16': onnxruntime computes in that of the graphs"):
        load_engine(open_bundle(toy_bundle), "onnxruntime", options=EngineOptions(precision="bf16"))


def test_a_share_is_the_engine_itself(toy_bundle: Path) -> None:
    """Sessions run in many threads at once; each run has a binding of its own."""
    engine = load_engine(open_bundle(toy_bundle), "onnxruntime", stages=["encoder"])
    assert engine.share() is engine

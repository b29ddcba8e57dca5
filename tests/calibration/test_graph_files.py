"""Test that graphs are written completely, wherever their weights were before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper, save

from glesam_calibration import graph_files
from glesam_calibration.graph_files import save_graph
from glesam_runtime.onnx_files import external_data_locations

WEIGHT = np.arange(4096, dtype=np.float32).reshape(64, 64)


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """Write a graph of one matrix product into a folder of its own."""
    folder = tmp_path / "source"
    folder.mkdir()
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [tensor("x", 1, [1, 64])],
        [tensor("y", 1, [1, 64])],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    path = folder / "product.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


def answer(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.ones((1, 64), np.float32)})
    return np.asarray(found)


@pytest.mark.parametrize(("before", "after"), [(1, 1 << 30), (1 << 30, 1), (1, 1)])
def test_weights_move_with_their_graph(
    before: int, after: int, product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Move weights from a separate file into the graph, as when they shrink to 8 bits, and back."""
    monkeypatch.setattr(graph_files, "EXTERNAL_DATA_FROM", before)
    first = tmp_path / "first"
    first.mkdir()
    data = save_graph(ir.load(product), first / "product.onnx")
    assert (data is not None) == (before == 1)
    monkeypatch.setattr(graph_files, "EXTERNAL_DATA_FROM", after)
    second = tmp_path / "second"
    second.mkdir()
    path = second / "product.onnx"
    data = save_graph(ir.load(first / "product.onnx"), path)
    assert external_data_locations(path) == ({"product.onnx.data"} if after == 1 else set())
    assert data == (second / "product.onnx.data" if after == 1 else None)
    for file in first.iterdir():
        file.unlink()
    np.testing.assert_array_equal(answer(path), WEIGHT.sum(axis=0)[None])

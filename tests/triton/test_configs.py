"""The configs of backends that are not here, read as Triton reads them, against the graphs.

Triton's ONNX Runtime, OpenVINO and TensorRT backends did not load them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from glesam_runtime.bundle import open_bundle
from glesam_serving.triton.repository import Wanted, write_repository

onnx = pytest.importorskip("onnx")
model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
text_format = pytest.importorskip("google.protobuf.text_format")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_configs_have_the_graphs_tensors(backend: str, tmp_path: Path) -> None:
    write_repository(open_bundle(), tmp_path / "r", Wanted(True, backend, "gpu", 2, 64, True))
    for stage in ("encoder", "enhancer", "decoder"):
        base = tmp_path / "r" / f"glesam_{stage}"
        config = parse(base / "config.pbtxt")
        assert config.backend == backend
        graph = onnx.load(base / "1" / config.default_model_filename).graph
        weights = {tensor.name for tensor in graph.initializer}
        for declared, values in (
            (config.input, [value for value in graph.input if value.name not in weights]),
            (config.output, graph.output),
        ):
            assert {each.name for each in declared} == {value.name for value in values}
            for each in declared:
                (value,) = (value for value in values if value.name == each.name)
                assert each.data_type == model_config_pb2.TYPE_FP32
                assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
                axes = value.type.tensor_type.shape.dim
                assert len(each.dims) == len(axes)
                for have, axis in zip(each.dims, axes, strict=True):
                    # The manifest may fix an axis that shape inference leaves open.
                    assert have == axis.dim_value or not axis.HasField("dim_value")
        assert config.instance_group[0].count == 2
        assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
        assert config.version_policy.HasField("all")
        inputs = config.model_warmup[0].inputs
        assert set(inputs) == {each.name for each in config.input}
        for value in inputs.values():
            size = 4
            for axis in value.dims:
                size *= axis
            assert (base / "warmup" / value.input_data_file).stat().st_size == size


def test_models_in_python_parse(tmp_path: Path) -> None:
    write_repository(open_bundle(), tmp_path / "r", Wanted(False, "onnxruntime", "cpu", 1, 9, True))
    config = parse(tmp_path / "r/glesam/config.pbtxt")
    assert all(each.optional for each in config.input)
    assert config.parameters["cache_mib"].string_value == "9"
    assert not config.model_transaction_policy.decoupled
    search = parse(tmp_path / "r/glesam_everything/config.pbtxt")
    assert search.model_transaction_policy.decoupled


def parse(path: Path) -> object:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())

"""Compare the numbers of Q/DQ with ONNX Runtime's own quantizer and ONNX's evaluator."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glesam_calibration import qdq
from glesam_calibration.quantizable_layers import find_layers
from glesam_runtime.backends.onnxruntime import session_options
from glesam_runtime.engine_options import EngineOptions

from .graphs import layered, make, node, run

X = np.random.default_rng(5).normal(size=(2, 16, 6, 6)).astype(np.float32)


def ranges_on(model: ir.Model, x: np.ndarray) -> dict[str, float]:
    """Return the largest magnitude of every layer's input."""
    names = list(dict.fromkeys(layer.activation for layer in find_layers(model.graph)))
    inner = [name for name in names if name != "x"]
    found = dict(zip(inner, run(model, x, *inner)[1:], strict=True))
    return {name: float(np.abs(found.get(name, x)).max()) for name in names}


def session(model: ir.Model) -> ort.InferenceSession:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    options = session_options(EngineOptions())
    return ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])


@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("activations", [True, False])
def test_every_reader_computes_the_same(kind: qdq.EightBit, activations: bool) -> None:
    model = layered()
    (wanted,) = run(model, X)
    ranges = ranges_on(model, X) if activations else None
    qdq.insert(model, find_layers(model.graph), ranges, kind)
    (reference,) = run(model, X)
    (found,) = session(model).run(None, {"x": X})
    norm = np.linalg.norm
    np.testing.assert_allclose(found, reference, atol=1e-4 * norm(wanted))
    error = norm(reference - wanted) / norm(wanted)
    assert 0.001 < error < (0.05 if kind == "int8" else 0.15)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_weights_are_in_eight_bits_and_nothing_else_is(kind: qdq.EightBit) -> None:
    model = layered()
    before = {name: v.const_value.numpy() for name, v in model.graph.initializers.items()}
    layers = find_layers(model.graph)
    qdq.insert(model, layers, ranges_on(model, X), kind)
    quantized = {layer.weight for layer in layers}
    assert not quantized & set(model.graph.initializers)
    for name in set(before) - quantized:
        np.testing.assert_array_equal(
            model.graph.initializers[name].const_value.numpy(), before[name]
        )
    for op in ("Add", "Relu", "Reshape", "Transpose"):
        for one in (one for one in model.graph if one.op_type == op):
            producers = [v.producer() for v in one.inputs if v is not None]
            assert not any(p is not None and p.op_type == "DequantizeLinear" for p in producers)
    gemm = next(one for one in model.graph if one.op_type == "Gemm")
    assert gemm.inputs[2].name == "out.bias"
    assert model.opset_imports[""] == (18 if kind == "int8" else 19)


def test_int8_is_what_onnxruntimes_quantizer_makes_of_the_same_ranges(tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Once(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{"x": X}]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    model = layered()
    layers = {layer.node: layer for layer in find_layers(model.graph)}
    ir.save(model, tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "theirs.onnx",
        Once(),
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        nodes_to_quantize=["conv", "product"],
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )
    theirs = {t.name: t for t in onnx.load(tmp_path / "theirs.onnx").graph.initializer}
    for name in ("conv", "product"):
        layer = layers[name]
        weight = model.graph.initializers[layer.weight].const_value.numpy()
        scales = qdq.scales_of(weight, layer.axis, "int8")
        found = qdq.quantize(weight, scales, layer.axis, "int8")
        wanted = onnx.numpy_helper.to_array(theirs[f"{layer.weight}_quantized"])
        np.testing.assert_allclose(
            scales, onnx.numpy_helper.to_array(theirs[f"{layer.weight}_scale"]), rtol=1e-6
        )
        # A quotient halfway between two numbers may be rounded to either of them.
        assert np.abs(found.astype(int) - wanted).max() <= 1
        assert np.mean(found != wanted) < 0.01
    largest = np.abs(X).max()
    np.testing.assert_allclose(
        qdq.scale_for(largest, "int8"), onnx.numpy_helper.to_array(theirs["x_scale"]), rtol=1e-6
    )


@given(st.integers(0, 2**32 - 1), st.sampled_from(["int8", "fp8"]), st.integers(0, 1))
def test_no_weight_is_off_by_more_than_half_a_step(
    seed: int, kind: qdq.EightBit, axis: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = (rng.normal(size=(6, 9)) * 10.0 ** rng.uniform(-6, 6)).astype(np.float32)
    weight[2] = 0
    scales = qdq.scales_of(weight, axis, kind)
    spread = scales.reshape(-1, 1) if axis == 0 else scales
    back = qdq.quantize(weight, scales, axis, kind).astype(np.float32) * spread
    # e4m3: three bits of mantissa, 2 ** -6 the smallest normal number.
    step = spread if kind == "int8" else np.maximum(np.abs(weight) / 8, spread * 2.0**-9)
    assert (np.abs(back - weight) <= step * 0.5001).all()


def test_fp8_saturates() -> None:
    found = qdq.quantize(
        np.asarray([[1e6, -1e6, 460]], np.float32), np.ones(1, np.float32), 0, "fp8"
    )
    assert found.dtype == ml_dtypes.float8_e4m3fn
    np.testing.assert_array_equal(found.astype(np.float32), [[448, -448, 448]])


def test_negative_numbers_do_not_come_through_a_relu_before_fp8() -> None:
    """Check the case where ONNX Runtime drops a Relu before QuantizeLinear, as if for uint8."""
    rng = np.random.default_rng(0)
    nodes = [node("Relu", ["x"], ["r"], "relu"), node("MatMul", ["r", "w"], ["y"], "product")]
    model = make(nodes, {"w": rng.normal(size=(32, 8))}, {}, [4, 32])
    x = rng.normal(size=(4, 32)).astype(np.float32)
    (wanted,) = run(model, x)
    qdq.insert(model, find_layers(model.graph), {"r": 3.0}, "fp8")
    (found,) = session(model).run(None, {"x": x})
    assert np.linalg.norm(found - wanted) < 0.1 * np.linalg.norm(wanted)


def test_tensors_and_weights_are_quantized_once_for_all_their_readers() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"], "first"),
        node("MatMul", ["x", "w"], ["b"], "second"),
        node("MatMul", ["x", "w"], ["c"], "in float"),
        node("Sum", ["a", "b", "c"], ["y"], "sum"),
    ]
    model = make(nodes, {"w": np.ones((16, 3))}, {}, [2, 16])
    qdq.insert(model, find_layers(model.graph)[:2], {"x": 1.0}, "int8")
    ops = [one.op_type for one in model.graph]
    assert (ops.count("QuantizeLinear"), ops.count("DequantizeLinear")) == (1, 2)
    assert "w" in model.graph.initializers
    session(model)

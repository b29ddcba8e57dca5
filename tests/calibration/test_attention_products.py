"""Queries, keys, values and weights of attention in float8, compared with numpy's own rounding."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from glesam_calibration import attention_products
from glesam_calibration.attentions import attentions
from glesam_calibration.calibrator import calibrate
from glesam_calibration.cli import app
from glesam_calibration.quantize import Recipe
from glesam_runtime import open_bundle
from glesam_runtime.console import exit_code_of
from glesam_runtime.errors import InputError
from glesam_runtime.manifest import STAGES

from .conftest import FEW, QUIET

HEADS, TOKENS, SIZE = 2, 6, 4
SHAPE = (1, HEADS, TOKENS, SIZE)

WHOLE = """t = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, t) b = Add(s, bias)
    w = Softmax<axis=-1>(b) o = MatMul(w, v)"""


def in_pieces() -> str:
    """Return the same attention with a head at a time."""
    lines = ["axis = Constant<value=int64[1] {1}>()"]
    for head in range(HEADS):
        lines.append(f"from{head} = Constant<value=int64[1] {{{head}}}>()")
        lines.append(f"to{head} = Constant<value=int64[1] {{{head + 1}}}>()")
        for name in ("q", "k", "v", "bias"):
            lines.append(f"{name}{head} = Slice({name}, from{head}, to{head}, axis)")
        lines.append(
            f"t{head} = Transpose<perm=[0,1,3,2]>(k{head}) s{head} = MatMul(q{head}, t{head}) "
            f"b{head} = Add(s{head}, bias{head}) w{head} = Softmax<axis=-1>(b{head}) "
            f"o{head} = MatMul(w{head}, v{head})"
        )
    return " ".join(lines) + " o = Concat<axis=1>(o0, o1)"


def graph_of(attention: str, result: str = "y = Identity(o)") -> ir.Model:
    """Make a graph that computes queries, keys, values and biases from its input x."""
    shape = ",".join(map(str, SHAPE))
    square = f"{HEADS},{TOKENS},{TOKENS}"
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
    g (float[{shape}] x, float[1,{square}] bias) => (float[{shape}] y) {{
        q = Neg(x) k = Sin(x) v = Exp(x) {attention} {result} }}"""
    proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    model = ir.from_proto(proto)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return model


def run(model: ir.Model, x: np.ndarray, bias: np.ndarray) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"x": x, "bias": bias})
    return np.asarray(found)


def in_float8(values: np.ndarray, largest: float) -> np.ndarray:
    """Round to float8 with the smallest scale that is a power of two and keeps `largest`."""
    scale = 2.0 ** np.ceil(np.log2(largest / 448))
    return np.asarray((values / scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float64) * scale)


def expected(x: np.ndarray, bias: np.ndarray, ranges: dict[str, float]) -> np.ndarray:
    """Compute the quantized attention in float64."""
    wide = x.astype(np.float64)
    q, k, v = (
        in_float8(value.astype(np.float32), ranges[name])
        for name, value in (("q", -wide), ("k", np.sin(wide)), ("v", np.exp(wide)))
    )
    scores = q @ k.swapaxes(-1, -2) + bias
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.asarray(in_float8(weights.astype(np.float32), 1.0) @ v)


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Return an input, biases, and the ranges of queries, keys and values."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=SHAPE).astype(np.float32)
    bias = rng.normal(size=(1, HEADS, TOKENS, TOKENS)).astype(np.float32)
    ranges = {"q": -x, "k": np.sin(x), "v": np.exp(x)}
    return x, bias, {name: float(np.abs(value).max()) for name, value in ranges.items()}


@pytest.mark.parametrize("pieces", [False, True])
def test_products_are_those_of_float8(
    pieces: bool, data: tuple[np.ndarray, np.ndarray, dict[str, float]]
) -> None:
    x, bias, ranges = data
    model = graph_of(in_pieces() if pieces else WHOLE)
    plain = run(model, x, bias)
    assert list(attention_products.operand_names(model.graph)) == ["q", "k", "v"]
    assert attention_products.insert(model, ranges, "fp8") == (HEADS if pieces else 1)
    found, wanted = run(model, x, bias), expected(x, bias, ranges)
    # A weight that ONNX Runtime's softmax rounds to the other side of a step moves the result.
    assert np.linalg.norm(found - wanted) < 1e-3 * np.linalg.norm(wanted)
    assert np.linalg.norm(plain - wanted) > 1e-2 * np.linalg.norm(wanted)
    assert len(list(attentions(model.graph))) == (HEADS if pieces else 1), "still found"


@given(st.floats(1e-6, 1e6))
def test_scales_are_powers_of_two_and_keep_the_range(largest: float) -> None:
    scale = attention_products._power_of_two(largest, "fp8")
    assert np.frexp(scale)[0] == 0.5
    assert largest / 448 <= scale < 2 * largest / 448


def test_other_readers_get_float32(
    data: tuple[np.ndarray, np.ndarray, dict[str, float]],
) -> None:
    """SAM computes relative positions from the same queries."""
    x, bias, ranges = data
    model = graph_of(WHOLE, "y = Sub(o, q)")
    wanted = expected(x, bias, ranges) + x
    attention_products.insert(model, ranges, "fp8")
    assert np.linalg.norm(run(model, x, bias) - wanted) < 1e-3 * np.linalg.norm(wanted)


@pytest.mark.parametrize(
    "attention",
    [
        "t = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, t) w = Softmax<axis=2>(s) o = MatMul(w, v)",
        # Keys that are transposed for another reader too, and keys that are constant.
        "t = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, t) w = Softmax<axis=-1>(s) "
        "z = MatMul(w, v) u = Transpose<perm=[0,1,3,2]>(t) o = Add(z, u)",
        f"c = Constant<value=float[1,1,{SIZE},1] {{1, 2, 3, 4}}>() s = MatMul(q, c) "
        "w = Softmax<axis=-1>(s) h = ReduceMean<keepdims=1>(v) z = MatMul(w, h) o = Add(z, v)",
    ],
)
def test_what_stays_float32(attention: str) -> None:
    model = graph_of(attention)
    assert list(attention_products.operand_names(model.graph)) == []
    assert attention_products.insert(model, {}, "fp8") == 0


def test_a_calibration_with_attention(few_bundle: Path, tmp_path: Path) -> None:
    """Nano keeps its masks, and every attention of the encoder and the enhancer is in float8."""
    recipe, folder = Recipe("fp8", attention=True), tmp_path / "bundle"
    manifest, measured = calibrate(
        open_bundle(), folder, FEW, recipe, QUIET, allow_parity_failure=True
    )
    assert measured.mean_iou > 0.95
    for made, wanted in ((manifest, True), (open_bundle(few_bundle).manifest, UNSET)):
        assert made.calibration is not None
        assert made.calibration.attention is wanted
    for stage in STAGES:
        graph = ir.load(open_bundle(folder).graph_path(stage)).graph
        weights = [each.weighted.inputs[0] for each in attentions(graph)]
        quantized = [
            value is not None
            and (node := value.producer()) is not None
            and node.op_type == "DequantizeLinear"
            for value in weights
        ]
        computed = [each.has_computed_keys for each in attentions(graph)]
        assert quantized == (computed if stage != "decoder" else [False] * len(weights))
        assert any(computed)
        said = "products of activations" in manifest.stages[stage].islands
        assert said == (stage == "decoder")


def test_integers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="--attention: needs --fp8"):
        Recipe("int8", attention=True)
    words = ["quantize", "nano", "--int8", "--attention", "-o", str(tmp_path / "out")]
    assert exit_code_of(app, "glesam-calibrate", words) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert "--attention: needs --fp8" in line
    assert not (tmp_path / "out").exists()

"""Queries, keys, values and weights of attention in float8, compared with numpy's own rounding."""

from __future__ import annotations

import shutil
from dataclasses import replace
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
from glesam_calibration.attentions import Attention, attentions
from glesam_calibration.calibrator import calibrate, take_statistics
from glesam_calibration.cli import app
from glesam_calibration.quantize import Recipe, require_attention
from glesam_runtime import open_bundle
from glesam_runtime.console import exit_code_of
from glesam_runtime.errors import BundleError, InputError
from glesam_runtime.manifest import STAGES

from .conftest import FEW, QUIET

HEADS, TOKENS, SIZE = 2, attention_products.LEAST_KEYS, 4
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


@given(st.floats(1e-4, 1e6))
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
        f"c = Constant<value=float[1,1,{SIZE},{TOKENS}] "
        f"{{{', '.join('1' * SIZE * TOKENS)}}}>() s = MatMul(q, c) w = Softmax<axis=-1>(s) "
        "o = MatMul(w, v)",
        # One key less than the kernel takes.
        f"a = Constant<value=int64[1] {{0}}>() b = Constant<value=int64[1] {{{TOKENS - 1}}}>() "
        "two = Constant<value=int64[1] {2}>() f = Slice(k, a, b, two) h = Slice(v, a, b, two) "
        "t = Transpose<perm=[0,1,3,2]>(f) s = MatMul(q, t) w = Softmax<axis=-1>(s) "
        "o = MatMul(w, h)",
    ],
)
def test_what_stays_float32(attention: str) -> None:
    model = graph_of(attention)
    assert len(list(attentions(model.graph))) == ("axis=2" not in attention)
    assert list(attention_products.operand_names(model.graph)) == []
    assert attention_products.insert(model, {}, "fp8") == 0


def test_a_calibration_with_attention(few_bundle: Path, tmp_path: Path) -> None:
    """Nano keeps its masks, and every attention of the encoder and the enhancer is in float8."""
    recipe, folder = Recipe("fp8", attention=True), tmp_path / "bundle"
    manifest, measured = calibrate(
        open_bundle(), folder, FEW, recipe, QUIET, allow_parity_failure=True
    )
    assert measured.mean_iou > 0.95
    stages = ("encoder", "enhancer")
    for made, wanted in ((manifest, stages), (open_bundle(few_bundle).manifest, UNSET)):
        assert made.calibration is not None
        assert made.calibration.attention == wanted
    for stage in STAGES:
        graph = ir.load(open_bundle(folder).graph_path(stage)).graph
        found = list(attentions(graph))
        weights = [each.weighted.inputs[0] for each in found]
        quantized = [
            value is not None
            and (node := value.producer()) is not None
            and node.op_type == "DequantizeLinear"
            for value in weights
        ]
        wanted_here = [stage in stages and _takes_float8(each) for each in found]
        assert quantized == wanted_here
        left = f"{wanted_here.count(False)} of {len(found)} attentions"
        assert (left in manifest.stages[stage].islands) == (0 < sum(wanted_here) < len(found))
        assert ("products of activations" in manifest.stages[stage].islands) == (stage == "decoder")


def _takes_float8(attention: Attention) -> bool:
    scores = attention.scores.outputs[0].shape
    assert scores is not None
    return attention.has_computed_keys and int(scores[-1]) >= attention_products.LEAST_KEYS


def test_statistics_with_attention_serve_a_calibration_without(tmp_path: Path) -> None:
    folder, data = tmp_path / "statistics", replace(FEW, samples=1)
    bundle = open_bundle()
    both = ("encoder", "enhancer")
    _, state, seen = take_statistics(bundle, data, folder, False, QUIET, attention=both)
    _, again, found = take_statistics(bundle, data, folder, True, QUIET)
    assert again.plan == state.plan
    assert found.keys() == seen.keys()
    assert found["encoder"].keys() == seen["encoder"].keys()
    shutil.rmtree(folder)
    take_statistics(bundle, data, folder, False, QUIET)
    with pytest.raises(InputError, match="statistics of a calibration without --attention"):
        take_statistics(bundle, data, folder, True, QUIET, attention=both)


def test_nothing_to_quantize_is_refused(tmp_path: Path) -> None:
    """The error comes before statistics are taken."""
    with pytest.raises(InputError, match="leave out --weights-only all"):
        Recipe("fp8", attention=True, weights_only=STAGES)
    model = ir.load(open_bundle().graph_path("encoder"))
    for node in model.graph:
        if node.op_type == "Softmax":
            node.attributes["axis"] = ir.AttrInt64("axis", 1)
    folder = Path(shutil.copytree(open_bundle().path, tmp_path / "bundle"))
    ir.save(model, folder / "encoder.onnx")
    bundle = replace(open_bundle(), path=folder)
    with pytest.raises(BundleError, match="no attention that is spelled out"):
        require_attention(
            bundle, Recipe("fp8", attention=True, weights_only=("enhancer", "decoder"))
        )


def test_names_do_not_depend_on_ranges(
    data: tuple[np.ndarray, np.ndarray, dict[str, float]],
) -> None:
    """An engine can be refitted only with a graph of the same names."""
    names = []
    for ranges in (data[2], dict.fromkeys(data[2], 1.0)):
        model = graph_of(in_pieces())
        attention_products.insert(model, ranges, "fp8")
        names.append(sorted(model.graph.initializers))
    assert names[0] == names[1]


def test_what_float16_may_not_hold_stays_float32(
    data: tuple[np.ndarray, np.ndarray, dict[str, float]],
) -> None:
    for largest, count in ((57_345.0, 0), (57_344.0, 1)):
        assert attention_products.insert(graph_of(WHOLE), data[2] | {"v": largest}, "fp8") == count


def test_integers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="--attention: needs --fp8"):
        Recipe("int8", attention=True)
    words = ["quantize", "nano", "--int8", "--attention", "-o", str(tmp_path / "out")]
    assert exit_code_of(app, "glesam-calibrate", words) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert "--attention: needs --fp8" in line
    assert not (tmp_path / "out").exists()

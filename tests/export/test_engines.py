"""TensorRT-RTX compiles engines for GPUs that this machine does not have."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from msgspec.structs import replace
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from glesam_calibration import attention_products, qdq
from glesam_calibration.attentions import attentions
from glesam_calibration.quantizable_layers import find_layers
from glesam_export import emulate, precision, stages, tracing
from glesam_export.attention import for_tensorrt
from glesam_export.engines import precision_check
from glesam_export.engines.build_options import (
    PROFILE,
    EngineBuildOptions,
    profile_of,
    workspace_bytes,
)
from glesam_export.engines.bundle import compile_bundle
from glesam_export.engines.compile import compile_network, parse
from glesam_runtime.backends.tensorrt_api import import_family, system_name
from glesam_runtime.bundle import Bundle, file_ref, load_golden, open_bundle
from glesam_runtime.compare import relative_l2
from glesam_runtime.errors import BackendError, BundleError
from glesam_runtime.manifest import STAGES, StageName
from glesam_runtime.target import AxisRange

from ..traced import Traced
from .conftest import random_nano, random_nano2

CAPABILITIES = ("8.9", "12.0")
RTX = EngineBuildOptions("tensorrt-rtx", list(CAPABILITIES))
Run = Callable[..., tuple[int, str, str]]


def step(what: str) -> nullcontext[None]:
    return nullcontext()


def fused_kernels(engine: Path) -> int:
    """Count the attention kernels of an RTX engine, whose source is in the file."""
    return len(
        re.findall(
            rb"__global__ void (?:__launch_bounds__\([^)]*\) )?_gemm_mha", engine.read_bytes()
        )
    )


@pytest.fixture(scope="module")
def half(traced: Traced, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Export the encoders of nano and nano2 in fp16."""
    paths = {}
    for name, checkpoint in (("encoder", random_nano()), ("sam2", random_nano2())):
        folder = tmp_path_factory.mktemp(name)
        stage = traced.export_stage(checkpoint, "encoder", "fp16", 1, folder)
        paths[name] = folder / stage.graph.file
    return paths


def test_the_command(glesam_export: Run, nano16_bundle: Path, tmp_path: Path) -> None:
    """The command compiles a bundle into engines for two GPUs."""
    folder = tmp_path / "engines"
    code, out, err = glesam_export(
        *("trt", "--bundle", nano16_bundle, "--engine", "tensorrt-rtx"),
        *("--compute-capability", "8.9", "--compute-capability", "12.0", "-o", folder),
    )
    assert code == 0, err
    assert "compute capability 8.9, 12.0" in out
    source, built = open_bundle(nano16_bundle), open_bundle(folder)
    target = built.manifest.target
    assert target.engine == "tensorrt-rtx"
    assert target.build is not None
    assert target.build.compute_capabilities == CAPABILITIES
    assert target.build.source == source.sha256
    assert target.build.system == system_name()
    assert target.build.version == import_family("tensorrt-rtx").version
    assert target.build.precision_seen_in == "network"
    assert built.manifest.parity == source.manifest.parity
    for name, tensor in load_golden(source).items():
        np.testing.assert_array_equal(load_golden(built)[name], tensor)
    names = {path.name for path in folder.iterdir()}
    engines = {f"{stage}.engine" for stage in STAGES}
    assert names == engines | {"manifest.json", "golden.safetensors"}
    decoder = built.manifest.stages["decoder"]
    assert decoder.profile == {"B": PROFILE["B"], "P": PROFILE["P"]}
    assert built.manifest.stages["encoder"].profile is None
    assert fused_kernels(folder / "encoder.engine") > 0

    code, _, err = glesam_export(
        "trt", "--bundle", folder, "--engine", "tensorrt-rtx", "-o", tmp_path / "x"
    )
    assert code == 2
    assert "holds engines already" in err


INTERRUPTED = """
import os, signal, sys, threading
from contextlib import nullcontext
from pathlib import Path
from glesam_export.engines.build_options import EngineBuildOptions
from glesam_export.engines.bundle import compile_bundle
from glesam_runtime.bundle import open_bundle

signal.signal(signal.SIGINT, signal.default_int_handler)

def noted(what):
    if what.startswith("compile enhancer"):
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        print("started", flush=True)
    return nullcontext()

source, options = open_bundle(sys.argv[1]), EngineBuildOptions("tensorrt-rtx", ["8.9"])
try:
    compile_bundle(source, Path(sys.argv[2]), options, noted)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_truncated_build_leaves_nothing(nano16_bundle: Path, tmp_path: Path) -> None:
    """Ctrl-C during the compilation of a kernel leaves no files.

    The build runs in a process of its own, because TensorRT-RTX 1.7 crashes on a stopped build if
    OpenVINO is loaded in the same process.
    """
    command = [sys.executable, "-c", INTERRUPTED, str(nano16_bundle), str(tmp_path / "engines")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if not line.startswith("[W]")]  # Polygraphy's
    assert (done.returncode, said) == (0, ["started", "interrupted"]), done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", ["encoder", "sam2"])
def test_attention_is_fused(stage: str, half: dict[str, Path], tmp_path: Path) -> None:
    """Every attention of an encoder has a fused kernel, with positions, windows and pooling."""
    api = import_family("tensorrt-rtx")
    engine = tmp_path / "encoder.engine"
    compile_network(api, parse(api, half[stage]), (), RTX, engine, "encoder")
    graph = ir.load(half[stage]).graph
    assert fused_kernels(engine) == len(list(attentions(graph))) > 4
    assert for_tensorrt.make_fusible(graph) == ()


@pytest.mark.parametrize(
    ("preset", "kind", "attention"),
    [
        ("nano", "int8", False),
        ("nano", "fp8", False),
        ("nano", "fp8", True),
        ("nano2", "fp8", True),
    ],
)
def test_attention_beside_eight_bits_is_fused(
    preset: str, kind: qdq.EightBit, attention: bool, traced: Traced, tmp_path: Path
) -> None:
    """Layers in eight bits leave attention in float32, which TensorRT gets in float16 or float8."""
    checkpoint = random_nano() if preset == "nano" else random_nano2()
    stage = traced.export_stage(checkpoint, "encoder", "fp32", 1, tmp_path)
    model = with_weights(tmp_path / stage.graph.file)
    plain = computed(model, tmp_path)
    layers = find_layers(model.graph)
    qdq.insert(model, layers, {layer.activation: 8.0 for layer in layers}, kind)
    count = len(list(attentions(model.graph)))
    if attention:
        ranges = dict.fromkeys(attention_products.operand_names(model.graph), 8.0)
        # Three of nano2's attentions have fewer keys than a kernel of float8 takes.
        assert attention_products.insert(model, ranges, kind) == {"nano": 6, "nano2": 5}[preset]
    source, engine = tmp_path / "quantized.onnx", tmp_path / "encoder.engine"
    ir.save(model, source)
    quantized = computed(model, tmp_path)
    (tmp_path / "rewritten").mkdir()
    graph, changes = for_tensorrt.write_fusible(source, tmp_path / "rewritten", kind)
    assert changes == (for_tensorrt.HALVED,)
    # Numbers near the middle of two eight-bit steps may round to the other one, no more.
    error = relative_l2(computed(with_weights(graph), tmp_path), plain)
    assert error < 1.1 * relative_l2(quantized, plain)
    api = import_family("tensorrt-rtx")
    compile_network(api, parse(api, graph), (), RTX, engine, "encoder")
    assert fused_kernels(engine) == count > 4
    multiplies_float8 = b"_qmma_e4m3" in engine.read_bytes()
    assert multiplies_float8 == attention


def test_attention_beside_weights_in_eight_bits_stays_float32(tmp_path: Path) -> None:
    """Its heads are not joined either: no kernel would fuse them and store no scores."""
    model = with_weights(open_bundle().graph_path("encoder"))
    qdq.insert(model, find_layers(model.graph), None, "int8")
    ir.save(model, tmp_path / "encoder.onnx")
    source = tmp_path / "encoder.onnx"
    assert for_tensorrt.write_fusible(source, tmp_path / "rewritten", "int8") == (source, ())


def test_odd_forms_of_attention_are_halved(tmp_path: Path) -> None:
    """Queries that are the keys too, scales per channel, no zero point, a result that is output."""
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[1,2,40,8] x) => (float[1,2,40,8] y, float[1,2,40,40] s2) {
        one = Constant<value=float {1}>() two = Constant<value=float[2] {0.5, 0.25}>()
        q8 = QuantizeLinear<output_dtype=3>(x, one) q = DequantizeLinear(q8, one)
        c8 = QuantizeLinear<axis=1, output_dtype=3>(x, two) c = DequantizeLinear<axis=1>(c8, two)
        t = Transpose<perm=[0,1,3,2]>(q) s = MatMul(q, t) w = Softmax<axis=-1>(s)
        v = MatMul(w, c)
        t2 = Transpose<perm=[0,1,3,2]>(v) s2 = MatMul(v, t2) w2 = Softmax<axis=-1>(s2)
        y = MatMul(w2, v) }"""
    proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    model = ir.from_proto(proto)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    wanted = computed(model, tmp_path)
    assert for_tensorrt.halve(model.graph) == 1, "the other's scores are an output"
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert relative_l2(computed(model, tmp_path), wanted) < 1e-3


def test_float32_scores_are_left_to_the_kernel(tmp_path: Path) -> None:
    """SD 2.1's island casts queries and keys to float32; its self-attentions still fuse."""
    graph = stages.graph(random_nano(), "enhancer")
    precision.cast_graph(graph, "enhancer", "fp16", ("sam_vit_b", "sd21"))
    path, _ = tracing.export(graph, "enhancer", "fp16", 256, 1, tmp_path)
    model = ir.load(path)
    before = list(attentions(model.graph))
    assert not any(each.is_fusible for each in before)
    wanted = computed(model, tmp_path)
    assert for_tensorrt.make_fusible(model.graph) == (for_tensorrt.MOVED,)
    after = [each.is_fusible for each in attentions(model.graph)]
    assert sum(after) == len(before) / 2  # the others attend to the text, whose keys are constant
    assert for_tensorrt.make_fusible(model.graph) == ()
    assert relative_l2(computed(model, tmp_path), wanted) < 1e-3  # scores rounded to half


def with_weights(path: Path) -> ir.Model:
    """Load a graph with its weights, so that it can be saved in another folder."""
    return ir.external_data.load_to_model(ir.load(path))


def computed(model: ir.Model, folder: Path) -> np.ndarray:
    """Run a half-precision graph on noise with rounded results."""
    ir.save(model, folder / "computed.onnx")
    copy = ir.load(folder / "computed.onnx")
    emulate.to_float32(copy.graph)
    ir.save(copy, folder / "computed.onnx")
    session = onnxruntime.InferenceSession(
        folder / "computed.onnx", providers=["CPUExecutionProvider"]
    )
    source = copy.graph.inputs[0]
    given = np.random.default_rng(0).normal(size=tuple(source.shape)).astype(np.float32)
    result, *_ = session.run(None, {source.name: given})
    return np.asarray(result)


def test_weights_behind_a_hard_link_are_refused(nano_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(nano_bundle, tmp_path / "copy"))
    weights = copy / "enhancer.onnx.data"
    weights.write_bytes(b"0000")
    (tmp_path / "elsewhere").hardlink_to(weights)
    source = open_bundle(nano_bundle)
    enhancer = replace(source.manifest.stages["enhancer"], data=file_ref(weights))
    stages = {**source.manifest.stages, "enhancer": enhancer}
    linked = Bundle(copy, replace(source.manifest, stages=stages), source.sha256)
    with pytest.raises(BundleError, match=r"enhancer\.onnx\.data: is a hard link"):
        compile_bundle(linked, tmp_path / "engines", RTX, step)
    with pytest.raises(BundleError, match=r"enhancer\.onnx\.data: is a hard link"):
        emulate.emulated(linked, tmp_path / "emulated")


def test_precision_is_looked_for(nano16_bundle: Path, nano_bundle: Path, tmp_path: Path) -> None:
    """A float32 graph that is labelled fp16 is an error."""
    api = import_family("tensorrt-rtx")
    typed = parse(api, open_bundle(nano16_bundle).graph_path("enhancer"))
    found = precision_check.network_precisions(typed.definition)
    assert found["fp16"] > 50
    precision_check.require_precision(found, "fp16", "enhancer")
    source = open_bundle(nano_bundle)
    stages = {s: replace(source.manifest.stages[s], precision="fp16") for s in STAGES}
    renamed = Bundle(source.path, replace(source.manifest, stages=stages), source.sha256)
    with pytest.raises(BackendError, match=r"encoder: fp16 was requested, but .* are \d+ fp32"):
        compile_bundle(renamed, tmp_path / "engines", RTX, step)
    assert not (tmp_path / "engines").exists()
    with pytest.raises(BackendError, match="fp32 was requested"):
        precision_check.require_precision(found, "fp32", "enhancer")
    with pytest.raises(BackendError, match="bf16 was requested"):
        precision_check.require_precision(Counter(), "bf16", "enhancer")


def test_the_inspector_is_read() -> None:
    """The JSON has the form that TensorRT's documentation shows."""
    layers = [
        {
            "Name": "a",
            "Outputs": [{"Name": "x", "Format/Datatype": "Row major linear FP16 format"}],
        },
        {"Name": "b", "Outputs": [{"Name": "y", "Format/Datatype": "Half"}]},
        {"Name": "c", "Outputs": [{"Name": "z", "Format/Datatype": "BF16"}]},
        {"Name": "d", "Outputs": [{"Name": "z", "Format/Datatype": "N/A due to dynamic shapes"}]},
    ]
    assert precision_check.layer_precisions({"Layers": layers}, "e") == {"fp16": 2, "bf16": 1}
    with pytest.raises(BackendError, match="reports no layer types"):
        precision_check.layer_precisions({"Layers": ["a", "b"]}, "e")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--engine", "onnx"), "--engine onnx: choose tensorrt or tensorrt-rtx"),
        ((), r"tensorrt cannot be imported .*glesam-runtime\[trt\]"),
        (("--engine", "tensorrt-rtx"), "finds no GPU to compile for .*--compute-capability"),
        (("--compute-capability", "9.0"), "--compute-capability 9.0: .* supports 7.5"),
        (("--compute-capability", "8.9", "--timing-cache", "x"), "--timing-cache: .* leave it out"),
        (("--compute-capability", "8.9", "--version-compatible"), "does not support it"),
        (("--compute-capability", "8.9", "--strip-weights"), "on their target GPU"),
        (("--hardware-compatibility", "ampere_plus"), "--hardware-compatibility"),
        (("--profile", "B=2"), "--profile B=2: pass AXIS=MIN:OPT:MAX"),
        (("--profile", "Q=1:1:1"), "the axes are N, B, P"),
        (("--profile", "B=4:2:8"), "needs 1 <= MIN <= OPT <= MAX"),
        (("--workspace", "0"), "--workspace 0"),
        (("--fp16",), "--bundle and --fp16"),
        (("--preset", "nano", "--random-weights", "0"), "--bundle and --random-weights"),
    ],
)
def test_wrong_options(
    options: tuple[str, ...], words: str, glesam_export: Run, nano16_bundle: Path, tmp_path: Path
) -> None:
    if options and "--engine" not in options:
        options = (*options, "--engine", "tensorrt-rtx")
    code, _, err = glesam_export(
        "trt", "--bundle", nano16_bundle, "-o", tmp_path / "engines", *options
    )
    assert code == 2
    assert re.search(words, err), err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_its_own_source_is_not_replaced(nano16_bundle: Path, glesam_export: Run) -> None:
    code, _, err = glesam_export(
        *("trt", "--bundle", nano16_bundle, "-o", nano16_bundle, "--engine", "tensorrt-rtx"),
        *("--compute-capability", "8.9"),
    )
    assert code == 2
    assert "is the ONNX bundle itself" in err
    open_bundle(nano16_bundle)


def test_profiles() -> None:
    assert profile_of(()) == PROFILE
    assert profile_of(("B=2:4:8", "B=1:1:1"))["B"] == AxisRange(1, 1, 1)
    assert workspace_bytes(0.5) == 1 << 29
    assert workspace_bytes(None) is None


@pytest.mark.parametrize("stage", STAGES)
def test_bf16(stage: StageName, traced: Traced, tmp_path: Path) -> None:
    """The decoder compiles, because its deconvolutions are islands in bfloat16."""
    spec = traced.export_stage(random_nano(), stage, "bf16", 1, tmp_path)
    (tmp_path / "rewritten").mkdir()
    api = import_family("tensorrt-rtx")
    graph, _ = for_tensorrt.write_fusible(
        tmp_path / f"{stage}.onnx", tmp_path / "rewritten", "bf16"
    )
    parsed = parse(api, graph)
    precision_check.require_precision(
        precision_check.network_precisions(parsed.definition), "bf16", stage
    )
    engine = tmp_path / f"{stage}.engine"
    compile_network(api, parsed, spec.inputs, RTX, engine, stage)
    assert fused_kernels(engine) > 0


def test_sam2(half: dict[str, Path], tmp_path: Path) -> None:
    """SAM 2's encoder compiles with its high-resolution features as further outputs."""
    api = import_family("tensorrt-rtx")
    graph, _ = for_tensorrt.write_fusible(half["sam2"], tmp_path, "fp16")
    parsed = parse(api, graph)
    assert parsed.definition.num_outputs == 3
    precision_check.require_precision(
        precision_check.network_precisions(parsed.definition), "fp16", "encoder"
    )
    compile_network(api, parsed, (), RTX, tmp_path / "encoder.engine", "encoder")
    assert (tmp_path / "encoder.engine").stat().st_size > 1e6


def test_a_graph_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(BackendError, match=r"bad.onnx: parsing: tensorrt-rtx [\d.]+ failed"):
        parse(import_family("tensorrt-rtx"), tmp_path / "bad.onnx")

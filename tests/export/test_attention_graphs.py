"""Heads that are computed one at a time are joined, and attentions become single nodes, exactly."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass

from glesam_benchmark.gpu.seeded_bundles import with_attention_nodes
from glesam_calibration.attentions import attentions
from glesam_export import emulate, graphs, precision, stages, tracing
from glesam_export.attention import for_tensorrt
from glesam_export.attention.joined_heads import join_heads
from glesam_export.attention.nodes import OPSET, write_attention_nodes
from glesam_export.engines.build_options import EngineBuildOptions
from glesam_export.engines.compile import compile_network, parse
from glesam_export.families import named_features
from glesam_runtime.backends.tensorrt_api import import_family
from glesam_runtime.bundle import open_bundle
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.compare import relative_l2
from glesam_runtime.selftest import run_selftest

from ..traced import Traced
from .conftest import random_nano, random_nano2

BATCH = 2


@pytest.fixture(scope="module")
def in_pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export nano's encoder with a dynamic batch, and two heads at a time in its larger blocks."""
    folder = tmp_path_factory.mktemp("pieces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "SCORES_AT_ONCE", 2 * 256**2)
        stage = stages.export_stage(random_nano(), "encoder", "fp32", "dynamic", folder)
    return folder / stage.graph.file


def latents_of(model: ir.Model, folder: Path, image: np.ndarray) -> np.ndarray:
    """Run an encoder on ONNX Runtime."""
    ir.save(model, folder / "run.onnx")
    session = onnxruntime.InferenceSession(folder / "run.onnx", providers=["CPUExecutionProvider"])
    return np.asarray(session.run([EMBEDDINGS], {"image": image})[0])


def wanted_latents(image: np.ndarray) -> np.ndarray:
    """Run the reference, segment_anything's own encoder."""
    with torch.no_grad():
        features = random_nano().encoder()(torch.from_numpy(image))
    return named_features(features)[EMBEDDINGS].numpy()


@pytest.fixture
def image() -> np.ndarray:
    """Return noise for a batch of two."""
    return np.random.default_rng(0).normal(size=(BATCH, 3, 256, 256)).astype(np.float32)


def test_heads_are_joined(
    in_pieces: Path, image: np.ndarray, tmp_path: Path, traced: Traced
) -> None:
    model = ir.load(in_pieces)
    stage = traced.export_stage(random_nano(), "encoder", "fp32", "dynamic", tmp_path)
    whole = len(list(attentions(ir.load(tmp_path / stage.graph.file).graph)))
    assert len(list(attentions(model.graph))) > whole
    assert join_heads(model.graph) > 0
    RemoveUnusedNodesPass()(model)
    assert len(list(attentions(model.graph))) == whole
    assert join_heads(model.graph) == 0
    assert relative_l2(latents_of(model, tmp_path, image), wanted_latents(image)) < 1e-5


@pytest.mark.parametrize("damage", ["order", "values", "shared"])
def test_other_pieces_are_not_joined(
    damage: str, in_pieces: Path, image: np.ndarray, tmp_path: Path
) -> None:
    """Pieces in another order, with values of other heads, or with a bias of their own size."""
    model = ir.load(in_pieces)
    concats = [n for n in model.graph if n.op_type == "Concat" and len(n.inputs) == 2]
    for concat in concats:
        first, second = concat.inputs
        assert first is not None
        assert second is not None
        product = second.producer()
        assert product is not None
        if damage == "order":
            concat.replace_input_with(0, second)
            concat.replace_input_with(1, first)
        elif damage == "values":
            other = first.producer()
            assert other is not None
            product.replace_input_with(1, other.inputs[1])
        else:
            _add_shared(model.graph, [first, second], concat)
    before = latents_of(model, tmp_path, image)
    assert concats
    assert join_heads(model.graph) == 0
    np.testing.assert_array_equal(latents_of(model, tmp_path, image), before)


def _add_shared(graph: ir.Graph, pieces: list[ir.Value], concat: ir.Node) -> None:
    """Add to each piece a tensor with as many heads as a piece has."""
    shape = [1, 2, 1, 1]
    name = f"{concat.name}_shared"
    tensor = ir.tensor(np.arange(2, dtype=np.float32).reshape(shape), name=name)
    shared = ir.Value(name=name, const_value=tensor, shape=ir.Shape(shape))
    shared.dtype = ir.DataType.FLOAT
    graph.register_initializer(shared)
    for index, piece in enumerate(pieces):
        node = ir.Node("", "Add", [piece, shared])
        (output,) = node.outputs
        output.name, output.dtype, output.shape = f"{name}_{index}", piece.dtype, piece.shape
        graph.insert_before(concat, [node])
        concat.replace_input_with(index, output)


def test_a_gpu_gets_joined_heads(in_pieces: Path, tmp_path: Path) -> None:
    """Half-precision graphs are joined on the way to TensorRT, float32 ones are not."""
    source, changes = for_tensorrt.write_fusible(in_pieces, tmp_path, "fp32")
    assert (source, changes) == (in_pieces, ())
    source, changes = for_tensorrt.write_fusible(in_pieces, tmp_path, "fp16")
    assert changes == (for_tensorrt.JOINED,)
    before, after = (len(list(ir.load(path).graph)) for path in (in_pieces, source))
    assert after < before


def test_a_bundle_of_nodes_passes_its_selftest(traced: Traced, tmp_path: Path) -> None:
    """Every attention of every stage is a node, and masks are the reference's on two engines."""
    source = Path(shutil.copytree(traced.bundle(random_nano2()), tmp_path / "bundle"))
    folder = with_attention_nodes(source)
    before, manifest = open_bundle(source).manifest, open_bundle(folder).manifest
    assert manifest.target.opset == OPSET
    for name, stage in manifest.stages.items():
        count = len(list(attentions(ir.load(source / before.stages[name].graph.file).graph)))
        graph = ir.load(folder / stage.graph.file).graph
        assert sum(node.op_type == "Attention" for node in graph) == count > 0
        assert not list(attentions(graph))
    for backend in ("onnxruntime", "openvino"):
        assert run_selftest(open_bundle(folder), backend).passed


def test_pieces_become_one_node(in_pieces: Path, image: np.ndarray, tmp_path: Path) -> None:
    model = ir.load(in_pieces)
    count = write_attention_nodes(model)
    assert count == sum(node.op_type == "Attention" for node in model.graph) > 0
    assert not list(attentions(model.graph))
    assert relative_l2(latents_of(model, tmp_path, image), wanted_latents(image)) < 1e-5
    assert write_attention_nodes(model) == 0


HEADER = "agraph (float[2,4,8,8] q, float[2,4,8,8] k, float[2,4,8,8] v) => (float[2,4,8,8] out)"
SCORES = "t = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, t)"
OTHERS = {
    "softmax over queries": f"{SCORES} w = Softmax<axis=2>(s) y = MatMul(w, v) out = Neg(y)",
    "values first": f"{SCORES} w = Softmax<axis=-1>(s) y = MatMul(v, w) out = Neg(y)",
    "scaled scores": f"""{SCORES} two = Constant<value=float[1] {{2.0}}>() m = Mul(s, two)
        w = Softmax<axis=-1>(m) y = MatMul(w, v) out = Neg(y)""",
    "two biases": f"""{SCORES} b = Add(s, q) c = Add(b, v) w = Softmax<axis=-1>(c)
        y = MatMul(w, v) out = Neg(y)""",
    "one head for all": f"""z = Constant<value=int64[1] {{0}}>()
        o = Constant<value=int64[1] {{1}}>() one = Slice(v, z, o, o) {SCORES}
        w = Softmax<axis=-1>(s) y = MatMul(w, one) out = Neg(y)""",
}
"""Graphs that are not the attention of an Attention node with three inputs of equal shapes."""


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_such_attention_stays(kind: str) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 18]>\n{HEADER} {{\n{OTHERS[kind]}\n}}"""
    proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    model = ir.from_proto(proto)
    assert write_attention_nodes(model) == 0
    kept = [(node.op_type, [v and v.name for v in node.inputs]) for node in model.graph]
    assert kept == [(node.op_type, list(node.input)) for node in proto.graph.node]


def test_the_text_is_repeated_for_every_image(traced: Traced, tmp_path: Path) -> None:
    """A product broadcasts the constant keys and values of the text, a node does not."""
    stage = traced.export_stage(random_nano(), "enhancer", "fp32", "dynamic", tmp_path)
    plain, nodes = (ir.load(tmp_path / stage.graph.file) for _ in range(2))
    assert write_attention_nodes(nodes) == len(list(attentions(plain.graph))) > 0
    latents = np.random.default_rng(0).normal(size=(3, 256, 16, 16)).astype(np.float32)
    outputs = []
    for model in (plain, nodes):
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
        ir.save(model, tmp_path / "run.onnx")
        session = onnxruntime.InferenceSession(
            tmp_path / "run.onnx", providers=["CPUExecutionProvider"]
        )
        outputs.append([session.run(None, {EMBEDDINGS: z})[0] for z in (latents, latents[:1])])
    for got, wanted in zip(*outputs, strict=True):
        assert relative_l2(got, wanted) < 1e-5


def test_float32_scores_are_left_to_the_node(tmp_path: Path) -> None:
    """SD 2.1's island has float32 queries and keys; its nodes are half precision, all of them."""
    graph = stages.graph(random_nano(), "enhancer")
    precision.cast_graph(graph, "enhancer", "fp16", ("sam_vit_b", "sd21"))
    path, _ = tracing.export(graph, "enhancer", "fp16", 256, 1, tmp_path)
    plain, nodes = (ir.load(path) for _ in range(2))
    count = len(list(attentions(plain.graph)))
    assert write_attention_nodes(nodes) == count
    written = [node for node in nodes.graph if node.op_type == "Attention"]
    assert len(written) == count
    assert {v.dtype for node in written for v in node.inputs if v} == {ir.DataType.FLOAT16}
    results = []
    latents = np.random.default_rng(0).normal(size=(1, 256, 16, 16)).astype(np.float32)
    for model in (plain, nodes):
        emulate.to_float32(model.graph)
        ir.save(model, tmp_path / "run.onnx")
        session = onnxruntime.InferenceSession(
            tmp_path / "run.onnx", providers=["CPUExecutionProvider"]
        )
        results.append(session.run(None, {EMBEDDINGS: latents})[0])
    assert relative_l2(results[1], results[0]) < 1e-3


def test_images_are_not_taken_for_heads() -> None:
    """A Reshape with the right number of heads may still move heads between images."""
    text = """<ir_version: 8, opset_import: ["" : 18]>
        agraph (float[4,4,3,5] x) => (float[2,4,6,5] out) {
        z = Constant<value=int64[1] {0}>() a = Constant<value=int64[1] {1}>()
        b = Constant<value=int64[1] {2}>() c = Constant<value=int64[1] {4}>()
        shape = Constant<value=int64[4] {2,2,6,5}>()
        x0 = Slice(x, z, b, a, a) x1 = Slice(x, b, c, a, a)
        y0 = Reshape(x0, shape) y1 = Reshape(x1, shape)
        out = Concat<axis=1>(y0, y1) }"""
    proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    assert join_heads(ir.from_proto(proto).graph) == 0


def test_nodes_in_half_precision(traced: Traced, tmp_path: Path) -> None:
    """A node's result is rounded once; its error is about that of the spelled-out form."""
    stage = traced.export_stage(random_nano(), "encoder", "fp16", 1, tmp_path)
    image = np.random.default_rng(0).normal(size=(1, 3, 256, 256)).astype(np.float32)
    errors = []
    for nodes in (False, True):
        model = ir.load(tmp_path / stage.graph.file)
        assert not nodes or write_attention_nodes(model) > 0
        emulate.to_float32(model.graph)
        errors.append(relative_l2(latents_of(model, tmp_path, image), wanted_latents(image)))
    assert errors[1] < 1.2 * errors[0] < 5e-3


def test_tensorrt_compiles_nodes(traced: Traced, tmp_path: Path) -> None:
    kind = {"attention_nodes": True}
    stage = traced.export_stage(random_nano(), "encoder", "fp16", 1, tmp_path, **kind)
    api = import_family("tensorrt-rtx")
    network = parse(api, tmp_path / stage.graph.file)
    options = EngineBuildOptions("tensorrt-rtx", ["8.9"])
    compile_network(api, network, (), options, tmp_path / "encoder.engine", "encoder")
    assert (tmp_path / "encoder.engine").stat().st_size > 1e6

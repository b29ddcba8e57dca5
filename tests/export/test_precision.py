"""A typed graph is half precision except in its islands, inputs and outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from glesam_export import emulate, precision, stages, tracing
from glesam_export.graphs import Attend
from glesam_export.precision import DTYPES, ISLANDS, Float32
from glesam_runtime.bundle import open_bundle
from glesam_runtime.manifest import STAGES, PrecisionName, StageName

from ..traced import Traced
from .conftest import random_nano

HALVES: tuple[PrecisionName, ...] = ("fp16", "bf16")
ONNX_TYPE = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("stage", STAGES)
def test_everything_but_islands_is_half(stage: StageName, half: PrecisionName) -> None:
    graph = stages.graph(random_nano(), stage)
    kinds = precision.island_kinds(stage, half)
    counts = {kind: sum(isinstance(m, kind) for m in graph.modules()) for kind in kinds}
    precision.cast_graph(graph, stage, half)
    islands = {n: m for n, m in graph.named_modules() if isinstance(m, Float32)}
    assert len(islands) == sum(counts.values())
    for island in ISLANDS[stage]:
        named = [counts[kind] for kind in island.kinds if half in island.precisions]
        assert any(named) or half not in island.precisions, f"{island.name} names nothing here"
    for name, tensor in graph.state_dict().items():
        inside = any(name.startswith(f"{island}.") for island in islands)
        assert tensor.dtype == (torch.float32 if inside else DTYPES[half]), name


@pytest.mark.parametrize("half", HALVES)
def test_an_island_keeps_its_weights_to_the_last_bit(half: PrecisionName) -> None:
    """Weights of an island are never rounded to half precision."""
    original = stages.graph(random_nano(), "encoder").state_dict()
    graph = stages.graph(random_nano(), "encoder")
    precision.cast_graph(graph, "encoder", half, further=("blocks.1.mlp", "blocks.2.attention"))
    islands = [name for name, module in graph.named_modules() if isinstance(module, Float32)]
    assert {"blocks.1.mlp", "blocks.2.attention"} <= set(islands)
    assert not any(name.startswith("blocks.2.attention.") for name in islands)
    kept = {n: t for n, t in graph.state_dict().items() if t.dtype == torch.float32}
    assert any(name.startswith("blocks.1.mlp.module.lin1") for name in kept)
    for name, tensor in kept.items():
        assert torch.equal(tensor, original[name.replace(".module.", ".")]), name


def test_a_preset_has_islands_of_its_own() -> None:
    assert "attention scores" in precision.islands("enhancer", "fp16", ("sam_vit_b", "sd21"))
    assert "attention scores" not in precision.islands("enhancer", "bf16", ("sam_vit_b", "sd21"))
    assert "attention scores" not in precision.islands("enhancer", "fp16", ("nano", "nano"))
    graph = stages.graph(random_nano(), "enhancer")
    precision.cast_graph(graph, "enhancer", "fp16", ("sam_vit_b", "sd21"))
    q = torch.full((1, 1, 4, 8), 100.0, dtype=torch.float16)
    attend = next(module for module in graph.modules() if isinstance(module, Attend))
    weights = attend.weights(100 * q, 100 * q)  # 8e8, which overflows float16
    assert weights.dtype == torch.float16
    assert torch.equal(weights, torch.full((1, 1, 4, 4), 0.25, dtype=torch.float16))


def test_fp32_is_left_alone() -> None:
    graph = stages.graph(random_nano(), "decoder")
    before = [name for name, _ in graph.named_modules()]
    precision.cast_graph(graph, "decoder", "fp32")
    assert [name for name, _ in graph.named_modules()] == before
    assert precision.islands("decoder", "fp32") == ()
    assert "GLE's last add" in precision.islands("enhancer", "fp16")


@pytest.mark.parametrize("half", HALVES)
def test_the_file_is_typed_and_its_borders_are_float32(
    half: PrecisionName, traced: Traced, tmp_path: Path
) -> None:
    stage = traced.export_stage(random_nano(), "enhancer", half, 1, tmp_path)
    model = onnx.load(tmp_path / stage.graph.file)
    borders = [*model.graph.input, *model.graph.output]
    assert {value.type.tensor_type.elem_type for value in borders} == {TensorProto.FLOAT}
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    for weight in model.graph.initializer:
        types[weight.name] = weight.data_type
    products = [n for n in model.graph.node if n.op_type in ("Conv", "MatMul", "Gemm")]
    assert products
    for node in products:
        assert types[node.output[0]] == ONNX_TYPE[half], node.name
    softmaxes = [n for n in model.graph.node if n.op_type == "Softmax"]
    assert {types[n.output[0]] for n in softmaxes} == {TensorProto.FLOAT}
    last = next(n for n in model.graph.node if model.graph.output[0].name in n.output)
    assert last.op_type == "Add"
    producers = {output: n for n in model.graph.node for output in n.output}
    assert {producers[name].op_type for name in last.input} == {"Mul", "Cast"}


@pytest.mark.parametrize("stage", STAGES)
def test_half_the_numbers_are_half_the_file(
    stage: StageName, nano_bundle: Path, nano16_bundle: Path
) -> None:
    """Norms and softmaxes have float32 inputs and outputs; most weights are float16."""
    path, whole = (open_bundle(b).graph_path(stage) for b in (nano16_bundle, nano_bundle))
    assert 0.45 < path.stat().st_size / whole.stat().st_size < 0.55
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    weights = sum(len(w.raw_data) for w in model.graph.initializer)
    halves = [w for w in model.graph.initializer if w.data_type == TensorProto.FLOAT16]
    assert sum(len(w.raw_data) for w in halves) > 0.8 * weights
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    types |= {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
    types |= {w.name: w.data_type for w in model.graph.initializer}
    islands = ("Softmax", "LayerNormalization", "InstanceNormalization", "Sin", "Cos")
    found = {}
    for node in model.graph.node:
        if node.op_type in islands:
            found[node.op_type] = {types[name] for name in (*node.input, *node.output) if name}
    assert set(found) >= {"Softmax", "LayerNormalization"}
    assert ("Sin" in found) == (stage == "decoder")
    assert set().union(*found.values()) <= {TensorProto.FLOAT, TensorProto.INT64}


@pytest.mark.parametrize("half", HALVES)
def test_emulation_is_the_dtypes_own_arithmetic(half: PrecisionName, tmp_path: Path) -> None:
    """Emulation agrees with torch in that dtype, also for values that exceed 65504."""
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))

    class Small(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = x.to(DTYPES[half])
            h = (h * 1.7 + 0.3) @ weight.to(DTYPES[half])
            return ((h * h) * 3.0).float()

    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    x[0] *= 200
    program = torch.onnx.export(
        Small().eval(), (x,), dynamo=True, opset_version=tracing.OPSETS[half], verbose=False
    )
    assert program is not None
    emulate.to_float32(program.model.graph)
    program.save(tmp_path / "small.onnx")
    loaded = onnx.load(tmp_path / "small.onnx")
    assert not any(w.data_type == ONNX_TYPE[half] and not w.name for w in loaded.graph.initializer)
    session = onnxruntime.InferenceSession(
        tmp_path / "small.onnx", providers=["CPUExecutionProvider"]
    )
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    expected = Small()(x).numpy()
    assert np.isinf(expected[0]).any() == (half == "fp16")
    np.testing.assert_array_equal(np.isinf(found), np.isinf(expected))
    finite = np.isfinite(expected)
    step = {"fp16": 2.0**-10, "bf16": 2.0**-7}[half]
    # A different order of summation changes a sum by up to one step of its largest term.
    largest = np.where(finite, np.abs(expected), 0).max(axis=1, keepdims=True)
    distance = np.abs(np.where(finite, found, 0) - np.where(finite, expected, 0))
    assert (distance <= 2 * step * largest).all()
    exact = (x * 1.7 + 0.3) @ weight
    exact = (exact * exact * 3.0).numpy()
    rounding = np.abs(found - exact)[finite] / np.abs(exact)[finite]
    assert rounding.max() > step / 8, "rounded, not float32 all the way"

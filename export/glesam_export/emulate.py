"""Runs a float16 or bfloat16 graph on any CPU as half-precision hardware would.

ONNX Runtime's CPU kernels take no bfloat16, and for float16 they compute runs of operations in
float32 and leave out the roundings between. Here the graph is rewritten in float32 with every
half-precision result rounded where the graph says it is one: half storage, float32 accumulation,
overflow to infinity, on every machine the same.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir
from glesam_runtime.bundle import Bundle
from glesam_runtime.manifest import STAGES

HALF = (onnx_ir.DataType.FLOAT16, onnx_ir.DataType.BFLOAT16)

MOVES = frozenset(
    "Concat Expand Gather Identity Pad Reshape Slice Split Squeeze Transpose Unsqueeze Flatten "
    "Resize Relu".split()
)
"""Operations whose results are values they were given: already rounded."""


def emulated(bundle: Bundle, folder: Path) -> Bundle:
    """A copy of a bundle's graphs that computes in float32 and rounds as the original would.

    Args:
        bundle: of precision fp16 or bf16.
        folder: an empty folder for the graphs.

    Returns:
        The same manifest over the rewritten graphs; golden.safetensors is not there.
    """
    for stage in STAGES:
        graph = bundle.manifest.stages[stage].graph.file
        model = onnx_ir.load(bundle.path / graph)
        _widen(model.graph)
        onnx_ir.save(model, folder / graph, external_data=graph + ".data")
    return Bundle(folder, bundle.manifest, bundle.sha256)


def _widen(graph: onnx_ir.Graph) -> None:
    """Make every half value float32, rounded through the half type it had."""
    for value in list(graph.initializers.values()):
        if value.dtype in HALF:
            readers = list(value.uses())
            wide = _cast(value, onnx_ir.DataType.FLOAT)
            graph.insert_before(next(iter(graph)), wide.producer())
            _reroute(readers, wide)
    for node in list(graph):
        if node.op_type == "Constant":
            _round_outputs(graph, node, start=None)
            continue
        if node.op_type == "Cast" and node.attributes["to"].as_int() in HALF:
            target = onnx_ir.DataType(node.attributes["to"].as_int())
            node.attributes["to"] = onnx_ir.AttrInt64("to", onnx_ir.DataType.FLOAT)
            _round_outputs(graph, node, start=target)
        elif node.op_type not in MOVES:
            _round_outputs(graph, node, start=None)
        for output in node.outputs:
            if output.dtype in HALF:
                output.dtype = onnx_ir.DataType.FLOAT


def _round_outputs(
    graph: onnx_ir.Graph, node: onnx_ir.Node, start: onnx_ir.DataType | None
) -> None:
    """Send a node's half results through a cast to their type and back to float32."""
    for output in node.outputs:
        half = start or output.dtype
        if half not in HALF:
            continue
        readers = list(output.uses())
        narrow = _cast(output, half)
        wide = _cast(narrow, onnx_ir.DataType.FLOAT)
        steps = [wide.producer()] if node.op_type == "Constant" else [narrow.producer(), wide.producer()]
        graph.insert_after(node, steps)
        _reroute(readers, wide)


def _cast(value: onnx_ir.Value, to: onnx_ir.DataType) -> onnx_ir.Value:
    """The output of a new Cast of `value`."""
    node = onnx_ir.Node(
        "", "Cast", [value], [onnx_ir.AttrInt64("to", to)], name=f"{value.name}_as_{to.name}"
    )
    (output,) = node.outputs
    output.name = f"{value.name}_as_{to.name}"
    output.dtype, output.shape = to, value.shape
    return output


def _reroute(readers: list[tuple[onnx_ir.Node, int]], value: onnx_ir.Value) -> None:
    """Let every reader take `value` instead."""
    for node, index in readers:
        node.replace_input_with(index, value)

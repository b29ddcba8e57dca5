"""Runs a float16 or bfloat16 graph on any CPU as half-precision hardware would.

ONNX Runtime's CPU kernels take no bfloat16, and for float16 they compute runs of operations in
float32 and leave out the roundings between. Here the graph is rewritten in float32 with every
half-precision result rounded where the graph says it is one: half storage, float32 accumulation,
overflow to infinity, on every machine the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from glesam_runtime.bundle import Bundle, require_own_weights
from glesam_runtime.manifest import STAGES

HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

MOVES = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Relu", "Reshape"}
    | {"Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operations whose results are values they were given, rounded already."""


def emulated(bundle: Bundle, folder: Path) -> Bundle:
    """A copy of a bundle's graphs that computes in float32 and rounds as the original would.

    Args:
        bundle: of precision fp16 or bf16.
        folder: an empty folder for the graphs.

    Returns:
        The same manifest over the rewritten graphs; golden.safetensors is not there.

    Raises:
        BundleError: its weights are hard links.
    """
    require_own_weights(bundle)
    for stage in STAGES:
        graph = bundle.manifest.stages[stage].graph.file
        model = ir.load(bundle.path / graph)
        widen(model.graph)
        ir.save(model, folder / graph, external_data=graph + ".data")
    return Bundle(folder, bundle.manifest, bundle.sha256)


def widen(graph: ir.Graph, *, rounded: bool = True) -> dict[ir.Value, ir.Value]:
    """Make every half value of a graph float32, rounded through its old type; in place.

    Args:
        graph: of half precision, in whole or in part.
        rounded: False keeps every result as it is computed, in float32; weights stay rounded.

    Returns:
        The rounded value of each result that is one.
    """
    seen: dict[ir.Value, ir.Value] = {}
    halves = [value for value in graph.initializers.values() if value.dtype in HALF]
    nodes = list(graph)
    for weight in halves:
        readers = list(weight.uses())
        cast = _cast(weight, ir.DataType.FLOAT)
        graph.insert_before(nodes[0], [cast])
        _reroute(readers, cast.outputs[0])
    for node in nodes:
        for output in node.outputs:
            half = output.dtype
            if half not in HALF:
                continue
            readers = list(output.uses())
            if node.op_type == "Constant":
                casts = [_cast(output, ir.DataType.FLOAT)]
            elif node.op_type in MOVES:
                output.dtype = ir.DataType.FLOAT
                continue
            else:
                if node.op_type == "Cast":
                    node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
                output.dtype = ir.DataType.FLOAT
                if not rounded:
                    continue
                narrow = _cast(output, half)
                casts = [narrow, _cast(narrow.outputs[0], ir.DataType.FLOAT)]
            graph.insert_after(node, casts)
            _reroute(readers, casts[-1].outputs[0])
            seen[output] = casts[-1].outputs[0]
    return seen


def _cast(value: ir.Value, to: ir.DataType) -> ir.Node:
    """A new Cast of `value`, not in any graph yet."""
    name = f"{value.name}_as_{to.name}"
    node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", to)], name=name)
    (output,) = node.outputs
    output.name, output.dtype, output.shape = name, to, value.shape
    return node


def _reroute(readers: Sequence[tuple[ir.Node, int]], value: ir.Value) -> None:
    """Let every reader take `value` instead."""
    for node, index in readers:
        node.replace_input_with(index, value)

"""Makes a half-precision graph run on any CPU with the rounding of half-precision hardware.

ONNX Runtime's CPU kernels do not support bfloat16. For float16 they compute runs of operations in
float32 and skip the roundings between them. This module rewrites the graph in float32 and rounds
every result whose type in the graph is half precision. This emulates half storage, float32
accumulation and overflow to infinity, identically on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from glesam_calibration.attentions import HALF
from glesam_runtime.bundle import Bundle, require_own_weights
from glesam_runtime.manifest import STAGES

MOVES = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Relu", "Reshape"}
    | {"Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operations that only pass on input values. These are rounded already, so no rounding follows."""


def emulated(bundle: Bundle, folder: Path) -> Bundle:
    """Write copies of a bundle's graphs that compute in float32 and round like the originals.

    Args:
        bundle: of precision fp16 or bf16.
        folder: an empty folder for the graphs.

    Returns:
        A bundle of the rewritten graphs with the original manifest. It has no golden.safetensors.

    Raises:
        BundleError: the bundle's weight files are hard links.
    """
    require_own_weights(bundle)
    for stage in STAGES:
        graph = bundle.manifest.stages[stage].graph.file
        model = ir.load(bundle.path / graph)
        to_float32(model.graph)
        ir.save(model, folder / graph, external_data=graph + ".data")
    return Bundle(folder, bundle.manifest, bundle.sha256)


def to_float32(graph: ir.Graph, *, rounded: bool = True) -> dict[ir.Value, ir.Value]:
    """Change every half-precision value of a graph to float32, in place.

    Args:
        graph: of half precision, entirely or in part.
        rounded: True rounds each result through its original type. False keeps results in full
            float32; only the weights stay rounded.

    Returns:
        The float32 value that replaces each rounded result and each constant.
    """
    rounded_values: dict[ir.Value, ir.Value] = {}
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
            rounded_values[output] = casts[-1].outputs[0]
    return rounded_values


def _cast(value: ir.Value, to: ir.DataType) -> ir.Node:
    """Return a new Cast of `value` that is not in any graph yet."""
    name = f"{value.name}_as_{to.name}"
    node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", to)], name=name)
    (output,) = node.outputs
    output.name, output.dtype, output.shape = name, to, value.shape
    return node


def _reroute(readers: Sequence[tuple[ir.Node, int]], value: ir.Value) -> None:
    """Replace the input of every reader by `value`."""
    for node, index in readers:
        node.replace_input_with(index, value)

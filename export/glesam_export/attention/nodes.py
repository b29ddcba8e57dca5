"""Writes each attention of a graph as one Attention node (ONNX opset 23).

ONNX Runtime's CUDA provider has no rule that finds an attention which is spelled out: it stores the
scores and reads them back. It computes an Attention node with flash attention, or with a kernel of
CUTLASS where there are biases. Queries are scaled before (`graphs.Attend`), so the node's scale is
1. Nothing is said of the softmax's precision: these kernels compute it in float32 anyway, and
refuse a node that asks for it.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from glesam_export.attention.find import Attention, attentions, describe, permutation
from glesam_export.attention.for_tensorrt import move_casts
from glesam_export.attention.joined_heads import join_heads

OPSET = 23
"""The first opset with an Attention."""

IR_VERSION = 11
"""The first version of the file format that may hold this opset."""

RANK = 4
"""Queries, keys and values are [N, heads, tokens, size of a head]."""


def write_attention_nodes(model: ir.Model) -> int:
    """Replace every attention of a model by one node, in place, and return how many there were.

    Attentions stay as they are if their tensors are not [N, heads, tokens, d], or if their values
    have another d than their keys, which no fused kernel takes.
    """
    graph = model.graph
    join_heads(graph)
    move_casts(graph)
    RemoveUnusedNodesPass()(model)
    found = list(attentions(graph))
    count = sum(_replace(graph, attention, number) for number, attention in enumerate(found))
    if count:
        RemoveUnusedNodesPass()(model)
        graph.opset_imports[""] = max(OPSET, graph.opset_imports[""])
        model.ir_version = max(IR_VERSION, model.ir_version)
    return count


def _replace(graph: ir.Graph, attention: Attention, number: int) -> bool:
    scores, weighted = attention.scores, attention.weighted
    queries, transposed = scores.inputs
    values, result = weighted.inputs[1], weighted.outputs[0]
    biases = attention.biases
    if queries is None or transposed is None or values is None:
        return False
    if len(biases) > 1 or not _fits(queries, transposed, values, biases):
        return False
    keys = _untransposed(graph, scores, transposed, number)
    inputs: list[ir.Value] = [queries, keys, values]
    for bias in biases:
        inputs.append(_of_type(graph, attention, bias, queries.dtype, number))
    node = ir.Node("", "Attention", inputs, [ir.AttrFloat32("scale", 1.0)])
    assert result.shape is not None, "traced graphs have shapes"
    describe(node.outputs[0], f"attention_{number}", result.dtype, list(result.shape))
    graph.insert_before(weighted, [node])
    for reader, index in list(result.uses()):
        reader.replace_input_with(index, node.outputs[0])
    return True


def _untransposed(graph: ir.Graph, before: ir.Node, transposed: ir.Value, number: int) -> ir.Value:
    """Return keys [N, heads, M, d] from [N, heads, d, M]."""
    node = transposed.producer()
    if node is not None and node.op_type == "Transpose":
        (keys,) = node.inputs
        if keys is not None and permutation(node) == (0, 1, 3, 2):
            return keys
    back = ir.Node("", "Transpose", [transposed], [ir.AttrInt64s("perm", (0, 1, 3, 2))])
    assert transposed.shape is not None, "_fits read it"
    shape = [transposed.shape[axis] for axis in (0, 1, 3, 2)]
    describe(back.outputs[0], f"keys_{number}", transposed.dtype, shape)
    graph.insert_before(before, [back])
    return back.outputs[0]


def _of_type(
    graph: ir.Graph,
    attention: Attention,
    bias: ir.Value,
    dtype: ir.DataType | None,
    number: int,
) -> ir.Value:
    """Return a bias in the type of the queries, as the kernels take it."""
    if bias.dtype == dtype or dtype is None:
        return bias
    cast = ir.Node("", "Cast", [bias], [ir.AttrInt64("to", dtype)])
    assert bias.shape is not None, "_fits read it"
    describe(cast.outputs[0], f"bias_{number}", dtype, list(bias.shape))
    graph.insert_before(attention.softmax, [cast])
    return cast.outputs[0]


def _fits(
    queries: ir.Value, transposed: ir.Value, values: ir.Value, biases: list[ir.Value]
) -> bool:
    """Return whether the shapes and types are those of the operation, without broadcasting."""
    shapes = [tuple(each.shape or ()) for each in (queries, transposed, values, *biases)]
    if any(len(shape) != RANK for shape in shapes):
        return False
    (n, heads, tokens, size), keys, other, *rest = shapes
    m = keys[-1]
    if (keys, other) != ((n, heads, size, m), (n, heads, m, size)):
        return False
    if any(bias[-2:] != (tokens, m) for bias in rest):
        return False
    if any(bias[0] not in (1, n) or bias[1] not in (1, heads) for bias in rest):
        return False
    return queries.dtype == transposed.dtype == values.dtype

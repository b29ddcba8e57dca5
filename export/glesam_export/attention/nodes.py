"""Writes each attention of a graph as one Attention node (ONNX opset 23).

ONNX Runtime's CUDA provider has no rule that finds an attention which is spelled out: it stores the
scores and reads them back. It computes an Attention node with flash attention, or with a kernel of
CUTLASS where there are biases. Queries are scaled before (`graphs.Attend`), so the node's scale is
1. Nothing is said of the softmax's precision: these kernels compute it in float32 anyway, and
refuse a node that asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from glesam_calibration.attentions import Attention, attentions, describe, permutation
from glesam_export.attention.joined_heads import join_heads

OPSET = 23
"""The first opset with an Attention."""

IR_VERSION = 11
"""The first version of the file format that may hold this opset."""

RANK = 4
"""Queries, keys and values are [N, heads, tokens, size of a head]."""

TURNED = (0, 1, 3, 2)
"""The axes of keys that are transposed for a product."""


def write_attention_nodes(model: ir.Model) -> int:
    """Replace every attention of a model by one node, in place, and return how many there were.

    A node has the type of the attention's values. Queries, keys and biases that are float32 only
    so that scores do not overflow in half precision go in without their casts: fused kernels keep
    scores in float32. Keys and values that are the same for all images are repeated.

    Attentions stay as they are if their tensors are not [N, heads, tokens, d] with the same heads
    and the same d, if there are two biases, or if a bias does not have a score for every key.
    """
    graph = model.graph
    join_heads(graph)
    RemoveUnusedNodesPass()(model)
    found = list(attentions(graph))
    count = sum(_replace(graph, attention, number) for number, attention in enumerate(found))
    RemoveUnusedNodesPass()(model)
    graph.opset_imports[""] = max(OPSET, graph.opset_imports[""])
    model.ir_version = max(IR_VERSION, model.ir_version)
    return count


def _replace(graph: ir.Graph, attention: Attention, number: int) -> bool:
    scores, weighted = attention.scores, attention.weighted
    queries, transposed = scores.inputs
    values, result = weighted.inputs[1], weighted.outputs[0]
    biases = attention.biases
    if queries is None or transposed is None or values is None or result.is_graph_output():
        return False
    if len(biases) > 1 or not _fits(queries, transposed, values, biases):
        return False
    new = _NewNodes(graph, weighted, number)
    keys = new.untransposed(transposed)
    inputs = [queries, keys, values, *biases]
    inputs = [new.of_type(value, values.dtype) for value in inputs]
    for place in (1, 2):
        inputs[place] = new.for_all_images(inputs[place], queries)
    node = ir.Node("", "Attention", inputs, [ir.AttrFloat32("scale", 1.0)])
    assert result.shape is not None, "traced graphs have shapes"
    describe(node.outputs[0], f"attention_{number}", result.dtype, list(result.shape))
    graph.insert_before(weighted, [node])
    for reader, index in list(result.uses()):
        reader.replace_input_with(index, node.outputs[0])
    return True


@dataclass
class _NewNodes:
    """Adds what turns an attention's tensors into the inputs of a node, before its last product."""

    graph: ir.Graph
    before: ir.Node
    number: int
    count: int = 0

    def untransposed(self, transposed: ir.Value) -> ir.Value:
        """Return keys [N, heads, M, d] from [N, heads, d, M]."""
        node = transposed.producer()
        if node is not None and node.op_type == "Transpose" and permutation(node) == TURNED:
            (keys,) = node.inputs
            assert keys is not None, "a Transpose has an input"
            return keys
        assert transposed.shape is not None, "_fits read it"
        shape = [transposed.shape[axis] for axis in TURNED]
        attributes = [ir.AttrInt64s("perm", TURNED)]
        return self._add("Transpose", [transposed], attributes, transposed.dtype, shape)

    def of_type(self, value: ir.Value, dtype: ir.DataType | None) -> ir.Value:
        """Return a value in another type: what it was cast from, or a cast of it."""
        if value.dtype == dtype or dtype is None:
            return value
        node = value.producer()
        source = node.inputs[0] if node is not None and node.op_type == "Cast" else None
        if source is not None and source.dtype == dtype:
            return source
        assert value.shape is not None, "_fits read it"
        return self._add("Cast", [value], [ir.AttrInt64("to", dtype)], dtype, list(value.shape))

    def for_all_images(self, value: ir.Value, queries: ir.Value) -> ir.Value:
        """Repeat keys or values [1, heads, M, d] for every image of the queries.

        A product broadcasts them, the operation does not.
        """
        assert value.shape is not None, "_fits read it"
        assert queries.shape is not None, "_fits read it"
        images, *rest = queries.shape[0], *value.shape[1:]
        if value.shape[0] == images:
            return value
        ends = [ir.AttrInt64("start", 0), ir.AttrInt64("end", 1)]
        first = self._add("Shape", [queries], ends, ir.DataType.INT64, [1])
        ones = self._constant(np.ones(RANK - 1, np.int64))
        axis = [ir.AttrInt64("axis", 0)]
        shape = self._add("Concat", [first, ones], axis, ir.DataType.INT64, [RANK])
        return self._add("Expand", [value, shape], [], value.dtype, [images, *rest])

    def _add(
        self,
        kind: str,
        inputs: Sequence[ir.Value],
        attributes: Sequence[ir.Attr],
        dtype: ir.DataType | None,
        shape: Sequence[int | ir.SymbolicDim],
    ) -> ir.Value:
        node = ir.Node("", kind, inputs, attributes)
        describe(node.outputs[0], self._name(kind), dtype, shape)
        self.graph.insert_before(self.before, [node])
        return node.outputs[0]

    def _constant(self, array: npt.NDArray[np.int64]) -> ir.Value:
        name = self._name("constant")
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.dtype, value.shape = ir.DataType.INT64, ir.Shape(array.shape)
        self.graph.register_initializer(value)
        return value

    def _name(self, kind: str) -> str:
        self.count += 1
        return f"attention_{self.number}_{kind.lower()}_{self.count}"


def _fits(
    queries: ir.Value, transposed: ir.Value, values: ir.Value, biases: Sequence[ir.Value]
) -> bool:
    """Return whether the shapes are those of the operation.

    Keys and values may be those of one image. Nothing else may be broadcast, except for a bias
    along images and heads.
    """
    shapes = [tuple(each.shape or ()) for each in (queries, transposed, values, *biases)]
    if any(len(shape) != RANK for shape in shapes):
        return False
    (n, heads, tokens, size), keys, other, *rest = shapes
    m = keys[-1]
    if keys[1:] != (heads, size, m) or other[1:] != (heads, m, size):
        return False
    if keys[0] not in (1, n) or other[0] != keys[0]:
        return False
    return all(
        bias[0] in (1, n) and bias[1] in (1, heads) and bias[2:] == (tokens, m) for bias in rest
    )

"""Find the attentions of a graph, which are spelled out as two matrix products and a softmax."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_QDQ = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Attention:
    """The two matrix products of softmax(scores) @ values.

    Biases, casts and Q/DQ nodes may lie between the products.

    Attributes:
        scores: MatMul of queries [..., L, d] and transposed keys [..., d, M].
        softmax: Softmax of the scores, with biases.
        weighted: MatMul of weights [..., L, M] and values [..., M, e].
    """

    scores: ir.Node
    softmax: ir.Node
    weighted: ir.Node

    @property
    def is_fusible(self) -> bool:
        """Return whether TensorRT can fuse it.

        Both products must be in half precision. The keys must be the output of a node, if only of a
        Cast: attention to plain constant keys never fuses.
        """
        products = self.scores.outputs[0], self.weighted.outputs[0]
        return self.has_computed_keys and all(product.dtype in HALF for product in products)

    @property
    def has_computed_keys(self) -> bool:
        """Return whether the keys are not plain constants."""
        keys = self.scores.inputs[1]
        return keys is not None and keys.producer() is not None

    @property
    def biases(self) -> list[ir.Value]:
        """Return what is added to the scores, in the order of the additions."""
        found: list[ir.Value] = []
        node = _producer(self.softmax.inputs[0])
        while node is not None and node is not self.scores:
            if node.op_type == "Add" and node.inputs[1] is not None:
                found.insert(0, node.inputs[1])
            node = _producer(node.inputs[0])
        return found


def attentions(graph: ir.Graph) -> Iterator[Attention]:
    """Yield every attention of a graph in its order."""
    for node in graph:
        if node.op_type != "Softmax" or not _over_last_axis(node):
            continue
        scores = _skip_casts_and_biases(_producer(node.inputs[0]))
        weights = _behind_casts(node.outputs[0])
        readers = list(weights.uses())
        if scores is None or scores.op_type != "MatMul" or len(readers) != 1:
            continue
        weighted, place = readers[0]
        if weighted.op_type == "MatMul" and place == 0 and not weights.is_graph_output():
            yield Attention(scores, node, weighted)


def permutation(transpose: ir.Node) -> tuple[int, ...]:
    """Return the axes of a Transpose, or () if it says none, which turns all of them round."""
    given = transpose.attributes.get("perm")
    return () if given is None else tuple(given.as_ints())


def describe(
    value: ir.Value, name: str, dtype: ir.DataType | None, shape: Sequence[int | ir.SymbolicDim]
) -> None:
    """Set the name, type and shape of a new value."""
    value.name, value.shape = name, ir.Shape(shape)
    if dtype is not None:
        value.dtype = dtype


def _producer(value: ir.Value | None) -> ir.Node | None:
    return value.producer() if value is not None else None


def _skip_casts_and_biases(node: ir.Node | None) -> ir.Node | None:
    """Follow the first input past casts and added biases; return the node that comes before."""
    while node is not None and (node.op_type == "Add" or _is_float_cast(node)):
        node = _producer(node.inputs[0])
    return node


def _behind_casts(value: ir.Value) -> ir.Value:
    """Follow a value past casts and Q/DQ nodes that are its only readers."""
    while len(readers := list(value.uses())) == 1:
        node, place = readers[0]
        if place or not (node.op_type in _QDQ or _is_float_cast(node)):
            break
        value = node.outputs[0]
    return value


def _is_float_cast(node: ir.Node) -> bool:
    return node.op_type == "Cast" and node.outputs[0].dtype in (*HALF, ir.DataType.FLOAT)


def _over_last_axis(softmax: ir.Node) -> bool:
    axis, shape = softmax.attributes.get_int("axis", -1), softmax.inputs[0]
    rank = len(shape.shape) if shape is not None and shape.shape is not None else 0
    return axis in (-1, rank - 1)

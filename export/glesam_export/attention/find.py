"""Finds the attentions of a graph, which are spelled out as two matrix products and a softmax."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class Attention:
    """Refers to the two matrix products of softmax(scores) @ values.

    Biases and casts may lie between the products.

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
        keys = self.scores.inputs[1]
        computed = keys is not None and keys.producer() is not None
        return computed and all(product.dtype in HALF for product in products)

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
        if node.op_type != "Softmax":
            continue
        scores = _skip_casts_and_biases(_producer(node.inputs[0]))
        readers = [user for user, _ in node.outputs[0].uses()]
        if len(readers) == 1 and readers[0].op_type == "Cast":
            readers = [user for user, _ in readers[0].outputs[0].uses()]
        if scores is None or scores.op_type != "MatMul" or len(readers) != 1:
            continue
        if readers[0].op_type == "MatMul":
            yield Attention(scores, node, readers[0])


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
    while node is not None and node.op_type in ("Cast", "Add"):
        node = _producer(node.inputs[0])
    return node

"""Gives attention the form that TensorRT has fused kernels for, without changing a value.

Unfused, the scores of one of ViT-B's global heads are 4096 x 4096 numbers that go to memory and
back. Attention fuses as it is exported, with the softmax a float32 island or not and with biases
(`graphs.attention`), but for one thing: where `precision` keeps scores in float32, queries and keys
are cast before they are multiplied, and nothing fuses. A fused kernel has no other than float32
scores, it takes half-precision queries and keys and adds up in float32: the cast moves behind the
product. An engine that writes scores out would overflow then, so this is done to the graph that
TensorRT parses and not to the bundle's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

MOVED = "float32 attention scores left to the fused kernel's accumulators"
"""For the manifest."""

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class Attention:
    """softmax(scores) @ values in a graph: the two products, biases and casts aside."""

    scores: ir.Node
    """MatMul of queries [..., L, d] and transposed keys [..., d, M]."""
    weighted: ir.Node
    """MatMul of weights [..., L, M] and values [..., M, e]."""

    @property
    def is_fusible(self) -> bool:
        """In half precision throughout, and of keys that are computed: constant ones never fuse."""
        products = self.scores.outputs[0], self.weighted.outputs[0]
        keys = self.scores.inputs[1]
        computed = keys is not None and keys.producer() is not None
        return computed and all(product.dtype in _HALF for product in products)


def make_fusible(graph: ir.Graph) -> tuple[str, ...]:
    """Rewrite a half-precision graph's attentions in place; the names of what was done."""
    return (MOVED,) if move_casts(graph) else ()


def move_casts(graph: ir.Graph) -> int:
    """Multiply queries and keys in half precision where both were cast up for it; how many were.

    Constant keys stay as they are: their attention is fused in no form.
    """
    count = 0
    for attention in list(attentions(graph)):
        scores = attention.scores
        queries, keys = (_half_source(value) for value in scores.inputs)
        if scores.outputs[0].dtype != ir.DataType.FLOAT or queries is None or keys is None:
            continue
        product = scores.outputs[0]
        readers = list(product.uses())
        scores.replace_input_with(0, queries)
        scores.replace_input_with(1, _transposed_half(graph, scores, keys))
        assert queries.dtype is not None, "_half_source looked at it"
        product.dtype = queries.dtype
        cast = ir.Node("", "Cast", [product], [ir.AttrInt64("to", ir.DataType.FLOAT)])
        assert product.shape is not None, "traced graphs have shapes"
        _describe(cast.outputs[0], f"scores_{count}", ir.DataType.FLOAT, list(product.shape))
        graph.insert_after(scores, [cast])
        for reader, index in readers:
            reader.replace_input_with(index, cast.outputs[0])
        count += 1
    return count


def attentions(graph: ir.Graph) -> Iterator[Attention]:
    """Every attention of a graph, in order."""
    for node in graph:
        if node.op_type != "Softmax":
            continue
        before, after = node.inputs[0], node.outputs[0]
        scores = _product(before.producer() if before is not None else None)
        readers = [user for user, _ in after.uses()]
        if len(readers) == 1 and readers[0].op_type == "Cast":
            readers = [user for user, _ in readers[0].outputs[0].uses()]
        if scores is None or scores.op_type != "MatMul" or len(readers) != 1:
            continue
        if readers[0].op_type == "MatMul":
            yield Attention(scores, readers[0])


def _half_source(value: ir.Value | None) -> ir.Value | None:
    """What a float32 value was in half precision: itself before a cast, or its transpose was."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Transpose" and node.inputs[0] is not None:
        return value if _half_source(node.inputs[0]) is not None else None
    if node is None or node.op_type != "Cast" or node.inputs[0] is None:
        return None
    return node.inputs[0] if node.inputs[0].dtype in _HALF else None


def _transposed_half(graph: ir.Graph, before: ir.Node, keys: ir.Value) -> ir.Value:
    """Keys in half precision: as they are, or transposed anew where they were cast before that."""
    transpose = keys.producer()
    if keys.dtype in _HALF or transpose is None:
        return keys
    source = _half_source(transpose.inputs[0])
    assert source is not None, "_half_source found it"
    assert keys.shape is not None, "traced graphs have shapes"
    node = ir.Node("", "Transpose", [source], list(transpose.attributes.values()))
    _describe(node.outputs[0], f"{keys.name}_half", source.dtype, list(keys.shape))
    graph.insert_before(before, [node])
    return node.outputs[0]


def _product(node: ir.Node | None) -> ir.Node | None:
    """What is behind a cast or a bias."""
    while node is not None and node.op_type in ("Cast", "Add") and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


def _describe(
    value: ir.Value, name: str, dtype: ir.DataType | None, shape: Sequence[int | ir.SymbolicDim]
) -> None:
    value.name, value.shape = name, ir.Shape(shape)
    if dtype is not None:
        value.dtype = dtype

"""Gives attention the form that TensorRT has fused kernels for, without changing a value.

A fused kernel wants queries, keys and values of one head size, from 16 up and a multiple of 8.
SAM's relative positions ride in the queries and keys (`graphs.encoder`), so that in ViT-B's global
blocks these are 192 wide and the values 64: unfused, the scores of a block are 12 x 4096 x 4096
numbers that go to memory and back. Zeros make the sizes alike: a zero in a query and a key adds
nothing to their product, and a column of zero values gives a column of zeros, which is cut off.

ONNX Runtime and OpenVINO on a CPU would multiply by the zeros, so this is done to the graph that
TensorRT parses and not to the bundle's.

Where `precision` keeps scores in float32, queries and keys are cast before they are multiplied,
and nothing fuses. A fused kernel has no other than float32 scores, it takes half-precision queries
and keys and adds up in float32: the cast moves behind the product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

PADDED = "attention heads padded with zeros to one size"
MOVED = "float32 attention scores left to the fused kernel's accumulators"
"""For the manifest."""

_SMALLEST, _MULTIPLE = 16, 8
_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class Attention:
    """softmax(scores) @ values in a graph: the two products, casts around the softmax aside."""

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

    @property
    def head_sizes(self) -> tuple[int, int] | None:
        """D and e; None where a shape leaves one open."""
        d, e = (_last(value) for value in (self.scores.inputs[0], self.weighted.inputs[1]))
        return None if d is None or e is None else (d, e)


def make_fusible(graph: ir.Graph) -> tuple[str, ...]:
    """Rewrite a half-precision graph's attentions in place; the names of what was done."""
    moved, padded = move_casts(graph), pad_heads(graph)
    return (*((MOVED,) if moved else ()), *((PADDED,) if padded else ()))


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


def pad_heads(graph: ir.Graph) -> int:
    """Pad the attentions of a half-precision graph that need it, in place; how many there were."""
    count = 0
    for attention in list(attentions(graph)):
        sizes = attention.head_sizes
        if sizes is None or not attention.is_fusible:
            continue
        d, e = sizes
        size = -(-max(d, e, _SMALLEST) // _MULTIPLE) * _MULTIPLE
        if (d, e) == (size, size):
            continue
        name = f"heads_{count}"
        _pad(graph, attention.scores, 0, -1, size - d, f"{name}_queries")
        _pad(graph, attention.scores, 1, -2, size - d, f"{name}_keys")
        _pad(graph, attention.weighted, 1, -1, size - e, f"{name}_values")
        _cut(graph, attention.weighted, e, size, name)
        count += 1
    return count


def attentions(graph: ir.Graph) -> Iterator[Attention]:
    """Every attention of a graph, in order."""
    for node in graph:
        if node.op_type != "Softmax":
            continue
        before, after = node.inputs[0], node.outputs[0]
        scores = _past_cast(before.producer() if before is not None else None)
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


def _past_cast(node: ir.Node | None) -> ir.Node | None:
    if node is None or node.op_type != "Cast" or node.inputs[0] is None:
        return node
    return node.inputs[0].producer()


def _last(value: ir.Value | None) -> int | None:
    """A tensor's last dimension, where it is known."""
    if value is None or value.shape is None:
        return None
    size = value.shape[-1]
    return size if isinstance(size, int) else None


def _pad(graph: ir.Graph, node: ir.Node, index: int, axis: int, missing: int, name: str) -> None:
    """Append `missing` zeros to an axis of one of a node's inputs."""
    value = node.inputs[index]
    assert value is not None, "a MatMul has two inputs"
    assert value.shape is not None, "head_sizes knew it"
    if missing == 0:
        return
    rank = len(value.shape)
    pads = np.zeros(2 * rank, np.int64)
    pads[2 * rank + axis] = missing
    shape = list(value.shape)
    shape[axis] = int(shape[axis]) + missing  # type: ignore[arg-type]
    padding = ir.Node("", "Pad", [value, _constant(graph, f"{name}_pads", pads)], name=name)
    _describe(padding.outputs[0], name, value.dtype, shape)
    graph.insert_before(node, [padding])
    node.replace_input_with(index, padding.outputs[0])


def _cut(graph: ir.Graph, node: ir.Node, size: int, padded: int, name: str) -> None:
    """Keep the first `size` of the last axis of a node's output for all who read it."""
    output = node.outputs[0]
    assert output.shape is not None, "head_sizes knew it"
    if size == padded:
        return
    readers, shape = list(output.uses()), list(output.shape)
    bounds = [
        _constant(graph, f"{name}_{word}", np.asarray([number], np.int64))
        for word, number in (("from", 0), ("to", size), ("axis", len(shape) - 1))
    ]
    cut = ir.Node("", "Slice", [output, *bounds], name=f"{name}_cut")
    _describe(cut.outputs[0], f"{name}_cut", output.dtype, shape)
    output.shape = ir.Shape([*shape[:-1], padded])
    graph.insert_after(node, [cut])
    for reader, index in readers:
        reader.replace_input_with(index, cut.outputs[0])


def _constant(graph: ir.Graph, name: str, values: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(values, name=name))
    value.dtype, value.shape = ir.DataType.INT64, ir.Shape(values.shape)
    graph.initializers[name] = value
    return value


def _describe(
    value: ir.Value, name: str, dtype: ir.DataType | None, shape: Sequence[int | ir.SymbolicDim]
) -> None:
    value.name, value.shape = name, ir.Shape(shape)
    if dtype is not None:
        value.dtype = dtype

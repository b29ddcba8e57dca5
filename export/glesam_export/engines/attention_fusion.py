"""Rewrites the attention of a graph into the form that TensorRT's fused kernels accept.

Without fusion, one global head of ViT-B writes 4096 x 4096 scores to memory and reads them back.
Exported attention already has a form that fuses, with biases and with a float32 softmax
(`graphs.attention`), with one exception: if `precision` keeps the scores in float32, queries and
keys are cast to float32 before they are multiplied, and nothing fuses.

A fused kernel takes queries and keys in half precision and accumulates scores in float32, so the
cast can move behind the product. This holds only inside a fused kernel: an engine that writes the
scores to memory would overflow. The rewrite therefore applies to the graph that TensorRT parses,
not to the bundle's graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from glesam_runtime.manifest import PrecisionName

MOVED = "float32 attention scores left to the fused kernel's accumulators"
"""Describes the rewrite in the manifest."""

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class Attention:
    """Refers to the two matrix products of softmax(scores) @ values.

    Biases and casts may lie between the products.

    Attributes:
        scores: MatMul of queries [..., L, d] and transposed keys [..., d, M].
        weighted: MatMul of weights [..., L, M] and values [..., M, e].
    """

    scores: ir.Node
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
        return computed and all(product.dtype in _HALF for product in products)


def write_fusible(
    source: Path, folder: Path, precision: PrecisionName
) -> tuple[Path, tuple[str, ...]]:
    """Write a copy of a graph whose attention fuses.

    Args:
        source: an ONNX graph.
        folder: where the copy and its weights go.
        precision: of the graph. TensorRT has no fused kernels for fp32.

    Returns:
        The graph to parse, and the changes made. Without changes the graph is `source` itself.
    """
    if precision == "fp32":
        return source, ()
    model = ir.load(source)
    changes = make_fusible(model.graph)
    if not changes:
        return source, ()
    path = folder / source.name
    RemoveUnusedNodesPass()(model)
    ir.save(model, path, external_data=f"{source.name}.data")
    return path, changes


def make_fusible(graph: ir.Graph) -> tuple[str, ...]:
    """Rewrite the attention of a half-precision graph in place; return the changes made."""
    return (MOVED,) if move_casts(graph) else ()


def move_casts(graph: ir.Graph) -> int:
    """Multiply queries and keys in half precision and cast the product, in place.

    Attention to plain constant keys stays as it is.

    Returns:
        The number of products that were rewritten.
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
        assert queries.dtype is not None, "_half_source checks it"
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
    """Yield every attention of a graph in its order."""
    for node in graph:
        if node.op_type != "Softmax":
            continue
        before, after = node.inputs[0], node.outputs[0]
        scores = _skip_casts_and_biases(before.producer() if before is not None else None)
        readers = [user for user, _ in after.uses()]
        if len(readers) == 1 and readers[0].op_type == "Cast":
            readers = [user for user, _ in readers[0].outputs[0].uses()]
        if scores is None or scores.op_type != "MatMul" or len(readers) != 1:
            continue
        if readers[0].op_type == "MatMul":
            yield Attention(scores, readers[0])


def _half_source(value: ir.Value | None) -> ir.Value | None:
    """Return the half-precision value behind a float32 one, or None if there is none.

    If the cast lies before a transpose, the result is the transposed float32 value itself.
    """
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Transpose" and node.inputs[0] is not None:
        return value if _half_source(node.inputs[0]) is not None else None
    if node is None or node.op_type != "Cast" or node.inputs[0] is None:
        return None
    return node.inputs[0] if node.inputs[0].dtype in _HALF else None


def _transposed_half(graph: ir.Graph, before: ir.Node, keys: ir.Value) -> ir.Value:
    """Return the keys in half precision; add a transpose if the cast lies before the old one."""
    transpose = keys.producer()
    if keys.dtype in _HALF or transpose is None:
        return keys
    source = _half_source(transpose.inputs[0])
    assert source is not None, "_half_source returned these keys"
    assert keys.shape is not None, "traced graphs have shapes"
    node = ir.Node("", "Transpose", [source], list(transpose.attributes.values()))
    _describe(node.outputs[0], f"{keys.name}_half", source.dtype, list(keys.shape))
    graph.insert_before(before, [node])
    return node.outputs[0]


def _skip_casts_and_biases(node: ir.Node | None) -> ir.Node | None:
    """Follow the first input past casts and added biases; return the node that comes before."""
    while node is not None and node.op_type in ("Cast", "Add") and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


def _describe(
    value: ir.Value, name: str, dtype: ir.DataType | None, shape: Sequence[int | ir.SymbolicDim]
) -> None:
    """Set the name, type and shape of a new value."""
    value.name, value.shape = name, ir.Shape(shape)
    if dtype is not None:
        value.dtype = dtype

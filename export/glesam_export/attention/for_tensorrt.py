"""Rewrites the attention of a graph into the form that TensorRT's fused kernels accept.

Without fusion, one global head of ViT-B writes 4096 x 4096 scores to memory and reads them back.
Exported attention already has a form that fuses, with biases and with a float32 softmax
(`graphs.Attend`). Two things are changed.

Heads that are computed one at a time are joined. One head of 4096 tokens is a kernel that leaves
most of a large GPU idle, and a fused kernel stores no scores, which is why heads were separated.

If `precision` keeps the scores in float32, queries and keys are cast to float32 before they are
multiplied, and nothing fuses. A fused kernel takes queries and keys in half precision and
accumulates scores in float32, so the cast can move behind the product. This holds only inside a
fused kernel: an engine that writes the scores to memory would overflow. The rewrite therefore
applies to the graph that TensorRT parses, not to the bundle's graph.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from glesam_export.attention.find import attentions, describe
from glesam_export.attention.joined_heads import join_heads
from glesam_export.emulate import HALF
from glesam_runtime.manifest import PrecisionName

MOVED = "float32 attention scores left to the fused kernel's accumulators"
JOINED = "heads of an attention computed together"
"""Describe the rewrites in the manifest."""


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
    joined, moved = join_heads(graph), move_casts(graph)
    return (JOINED,) * bool(joined) + (MOVED,) * bool(moved)


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
        describe(cast.outputs[0], f"scores_{count}", ir.DataType.FLOAT, list(product.shape))
        graph.insert_after(scores, [cast])
        for reader, index in readers:
            reader.replace_input_with(index, cast.outputs[0])
        count += 1
    return count


def _half_source(value: ir.Value | None) -> ir.Value | None:
    """Return the half-precision value behind a float32 one, or None if there is none.

    If the cast lies before a transpose, the result is the transposed float32 value itself.
    """
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Transpose" and node.inputs[0] is not None:
        return value if _half_source(node.inputs[0]) is not None else None
    if node is None or node.op_type != "Cast" or node.inputs[0] is None:
        return None
    return node.inputs[0] if node.inputs[0].dtype in HALF else None


def _transposed_half(graph: ir.Graph, before: ir.Node, keys: ir.Value) -> ir.Value:
    """Return the keys in half precision; add a transpose if the cast lies before the old one."""
    transpose = keys.producer()
    if keys.dtype in HALF or transpose is None:
        return keys
    source = _half_source(transpose.inputs[0])
    assert source is not None, "_half_source returned these keys"
    assert keys.shape is not None, "traced graphs have shapes"
    node = ir.Node("", "Transpose", [source], list(transpose.attributes.values()))
    describe(node.outputs[0], f"{keys.name}_half", source.dtype, list(keys.shape))
    graph.insert_before(before, [node])
    return node.outputs[0]

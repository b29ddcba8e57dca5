"""Rewrites the attention of a graph into the form that TensorRT's fused kernels accept.

Without fusion, one global head of ViT-B writes 4096 x 4096 scores to memory and reads them back.
Exported attention already has a form that fuses, with biases and with a float32 softmax
(`graphs.Attend`). Three things are changed.

Heads that are computed one at a time are joined. One head of 4096 tokens is a kernel that leaves
most of a large GPU idle, and a fused kernel stores no scores, which is why heads were separated.

If `precision` keeps the scores in float32, queries and keys are cast to float32 before they are
multiplied, and nothing fuses. A fused kernel takes queries and keys in half precision and
accumulates scores in float32, so the cast can move behind the product. This holds only inside a
fused kernel: an engine that writes the scores to memory would overflow. The rewrite therefore
applies to the graph that TensorRT parses, not to the bundle's graph.

A graph with eight-bit layers is float32 everywhere else, and float32 attention does not fuse. Its
queries, keys and weights are cast to float16; the softmax stays float32. Where attention itself is
in float8, its dequantized tensors become float16, and the kernel multiplies float8.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from glesam_calibration.attentions import HALF, attentions, describe
from glesam_export.attention.joined_heads import join_heads
from glesam_runtime.manifest import PrecisionName

MOVED = "float32 attention scores left to the fused kernel's accumulators"
JOINED = "heads of an attention computed together"
HALVED = "attention of float32 tensors in float16, with a float32 softmax"
"""Describe the rewrites in the manifest."""

HALVES: tuple[PrecisionName, ...] = ("fp16", "bf16")

HALF_SCALES = 19
"""The first opset whose DequantizeLinear takes a scale in float16."""


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
    if precision not in HALVES and not _has_quantized_activations(model.graph):
        return source, ()  # only its weights are in eight bits, and its attention is float32
    changes = make_fusible(model.graph)
    if not changes:
        return source, ()
    path = folder / source.name
    RemoveUnusedNodesPass()(model)
    ir.save(model, path, external_data=f"{source.name}.data")
    return path, changes


def make_fusible(graph: ir.Graph) -> tuple[str, ...]:
    """Rewrite the attention of a graph below float32 in place; return the changes made."""
    joined, moved, halved = join_heads(graph), move_casts(graph), halve(graph)
    changes = {JOINED: joined, MOVED: moved, HALVED: halved}
    return tuple(change for change, count in changes.items() if count)


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
        scores.replace_input_with(0, queries)
        scores.replace_input_with(1, _transposed_half(graph, scores, keys))
        assert queries.dtype is not None, "_half_source checks it"
        _cast_back(graph, scores, queries.dtype)
        count += 1
    return count


def halve(graph: ir.Graph) -> int:
    """Compute the products of float32 attention in float16, in place.

    Only a graph with quantized activations is changed: others have the precision they were asked
    for. Attention to plain constant keys stays as it is.

    Returns:
        The number of attentions that were rewritten.
    """
    if not _has_quantized_activations(graph):
        return 0
    count = 0
    for attention in list(attentions(graph)):
        products = attention.scores, attention.weighted
        results = [product.outputs[0] for product in products]
        if not attention.has_computed_keys or any(
            result.dtype != ir.DataType.FLOAT or result.is_graph_output() for result in results
        ):
            continue
        for product in products:
            for index, value in enumerate(product.inputs):
                assert value is not None, "a product has two inputs"
                name = f"{product.outputs[0].name}_{index}"
                product.replace_input_with(index, _in_half(graph, product, value, name))
            _cast_back(graph, product, ir.DataType.FLOAT16)
        count += 1
    return count


def _has_quantized_activations(graph: ir.Graph) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in graph)


def _in_half(graph: ir.Graph, before: ir.Node, value: ir.Value, stem: str) -> ir.Value:
    """Return a float32 value in float16; keys are cast before they are transposed."""
    node = value.producer()
    kind, inputs = (node.op_type, node.inputs) if node is not None else ("", ())
    scale = None
    if kind == "DequantizeLinear" and len(inputs) > 2 and graph.opset_imports[""] >= HALF_SCALES:
        scale = _half_scale(graph, inputs[1])
    if scale is not None:
        made = ir.Node("", kind, [inputs[0], scale, inputs[2]])
    elif node is not None and kind == "Transpose" and inputs[0] is not None:
        source = _in_half(graph, before, inputs[0], f"{stem}_turned")
        made = ir.Node("", kind, [source], list(node.attributes.values()))
    else:
        made = ir.Node("", "Cast", [value], [ir.AttrInt64("to", ir.DataType.FLOAT16)])
    assert value.shape is not None, "traced graphs have shapes"
    describe(made.outputs[0], f"{stem}_half", ir.DataType.FLOAT16, list(value.shape))
    graph.insert_before(before, [made])
    return made.outputs[0]


def _half_scale(graph: ir.Graph, scale: ir.Value | None) -> ir.Value | None:
    """Return the scale of a whole tensor in float16, or None if that is another number.

    DequantizeLinear returns the type of its scale.
    """
    tensor = ir.convenience.get_const_tensor(scale) if scale is not None else None
    if scale is None or tensor is None:
        return None
    name, rounded = f"{scale.name}_half", tensor.numpy().astype(np.float16)
    if rounded.ndim or not np.array_equal(rounded, tensor.numpy()):
        return None
    if name not in graph.initializers:
        made = ir.Value(name=name, const_value=ir.tensor(rounded, name=name))
        made.dtype, made.shape = ir.DataType.FLOAT16, ir.Shape(rounded.shape)
        graph.register_initializer(made)
    return graph.initializers[name]


def _cast_back(graph: ir.Graph, product: ir.Node, half: ir.DataType) -> None:
    """Cast the output of a product, now half precision, back to float32 for its readers."""
    output = product.outputs[0]
    readers = list(output.uses())
    output.dtype = half
    cast = ir.Node("", "Cast", [output], [ir.AttrInt64("to", ir.DataType.FLOAT)])
    assert output.shape is not None, "traced graphs have shapes"
    describe(cast.outputs[0], f"{output.name}_wide", ir.DataType.FLOAT, list(output.shape))
    graph.insert_after(product, [cast])
    for reader, index in readers:
        reader.replace_input_with(index, cast.outputs[0])


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

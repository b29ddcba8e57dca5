"""Builds the graph from a tool's image to the enhanced features: encoder and enhancer in one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from glesam_export.interop.graph_parts import Nodes, join, rename_output, tensor_input
from glesam_export.interop.tools import EMBEDDINGS, EncoderForm
from glesam_runtime.bundle import Bundle

FLOAT = ir.DataType.FLOAT


def build_encoder(bundle: Bundle, form: EncoderForm) -> ir.Model:
    """Return one graph of encoder and enhancer with the names and the input of a tool."""
    model = ir.load(bundle.graph_path("encoder"))
    enhancer = ir.load(bundle.graph_path("enhancer"))
    graph = model.graph
    source = enhancer.graph.inputs[0].name
    assert source is not None, "graph inputs have names"
    (enhanced,) = enhancer.graph.outputs
    join(model, enhancer, {source: EMBEDDINGS}, "enhancer")
    _replace_image(graph, bundle, form)
    nodes = Nodes(graph, "interop.out")
    found = {value.name: value for value in graph.outputs} | {EMBEDDINGS: enhanced}
    for value in graph.outputs:
        value.name = f"encoder.{value.name}"  # the tool may use the same name for another tensor
    graph.outputs.clear()
    for ours, theirs in form.outputs.items():
        graph.outputs.append(rename_output(graph, found[ours], theirs, nodes))
        # z_H has the shape of z_L.
        specs = bundle.manifest.stages["encoder"].outputs
        shape = next(spec.shape for spec in specs if spec.name == ours)
        graph.outputs[-1].shape = ir.Shape((1, *shape[1:]))
    graph.extend(nodes.made)
    return model


def _replace_image(graph: ir.Graph, bundle: Bundle, form: EncoderForm) -> None:
    """Replace the graph's input by that of the tool."""
    rules = bundle.manifest.preprocessing
    size = rules.image_size
    (old,) = graph.inputs
    nodes = Nodes(graph, "interop.in")
    if form.layout == "NCHW":
        new = tensor_input(form.image, FLOAT, (1, 3, size, size))
        image = new
    else:
        new = tensor_input(form.image, FLOAT, ("image_height", "image_width", 3))
        image = _prepared(nodes, new, form.square or size, size, rules.mean, rules.std)
    ir.convenience.replace_all_uses_with(old, image)
    graph.inputs.clear()
    graph.inputs.append(new)
    if nodes.made:
        graph.insert_before(graph[0], nodes.made)


def _prepared(
    nodes: Nodes,
    image: ir.Value,
    square: int,
    size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> ir.Value:
    """Normalise an image [h, w, 3], pad it with zeros to the square, and resize the square to S.

    Resizing comes after padding so that its sizes are fixed. It runs only in bundles whose S is
    not the square that the tool fits images into.
    """
    centred = nodes.add("Sub", image, nodes.floats(mean), dtype=FLOAT)
    scaled = nodes.add("Div", centred, nodes.floats(std), dtype=FLOAT)
    planes = nodes.add("Transpose", scaled, dtype=FLOAT, perm=[2, 0, 1])
    sides = nodes.add("Shape", planes, dtype=ir.DataType.INT64)  # [3, h, w]
    missing = nodes.add("Sub", nodes.integers([3, square, square]), sides, dtype=ir.DataType.INT64)
    pads = nodes.add(
        "Concat", nodes.integers(np.zeros(3)), missing, dtype=ir.DataType.INT64, axis=0
    )
    padded = nodes.add("Pad", planes, pads, dtype=FLOAT)
    value = nodes.add("Unsqueeze", padded, nodes.integers([0]), dtype=FLOAT)
    if square != size:
        value = nodes.scale_square(value, square, size)
    value.shape = ir.Shape((1, 3, size, size))
    value.dtype = FLOAT
    return value

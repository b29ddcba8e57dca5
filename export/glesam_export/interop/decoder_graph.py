"""Builds the decoder with a tool's interface: its coordinates, its choice of masks, its sizes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from glesam_export.interop.graph_parts import Nodes, rename_output, tensor_input
from glesam_export.interop.tools import EncoderForm, Interface, Masks
from glesam_runtime.bundle import Bundle
from glesam_runtime.manifest import Manifest

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64
_NUMBER_TYPES = {"float32": FLOAT, "int64": INT64}
_FEW_POINTS = 2.5
"""With fewer points (the padding point included) "one" selects the best of the last three masks,
otherwise the first. This is the rule of segment_anything's ONNX export."""
_FIRST_MASK_WEIGHT = (1000.0, 0.0, 0.0, 0.0)


def build_decoder(
    bundle: Bundle, interface: Interface, masks: Masks, points: int | None = None
) -> ir.Model:
    """Return the decoder with a tool's inputs and outputs.

    Args:
        bundle: the bundle.
        interface: the tool's.
        masks: masks per prompt.
        points: number of points of every prompt, padding included; None leaves it open.
    """
    form, manifest = interface.decoder, bundle.manifest
    model = ir.load(bundle.graph_path("decoder"))
    graph = model.graph
    old = {value.name: value for value in graph.inputs}
    low_res, iou = graph.outputs
    low_res.name, iou.name = "decoder.low_res_masks", "decoder.iou_predictions"
    graph.outputs.clear()
    graph.inputs.clear()
    before, after = Nodes(graph, "interop.in"), Nodes(graph, "interop.out")
    for name, theirs in form.features.items():
        shape = next(s.shape for s in manifest.stages["decoder"].inputs if s.name == name)
        _replace(graph, old[name], tensor_input(theirs, FLOAT, shape))
    count: int | str = points if points is not None else "num_points"
    prompts = _add_prompts(graph, before, old, interface, manifest, count)
    low_res, iou = _select(after, low_res, iou, masks, prompts[0])
    chosen = {"one": 1, "three": 3, "four": 4}[masks]
    side = manifest.preprocessing.image_size // 4
    low_res.shape, iou.shape = (
        ir.Shape(("num_prompts", chosen, side, side)),
        ir.Shape(("num_prompts", chosen)),
    )
    full = low_res
    if form.size_input:
        size = tensor_input("orig_im_size", _NUMBER_TYPES[form.size_input], (2,))
        graph.inputs.append(size)
        full = _enlarge(after, low_res, size, manifest)
        full.shape = ir.Shape(("num_prompts", chosen, "height", "width"))
    if threshold := manifest.postprocessing.mask_threshold:  # the tools compare with zero
        shifted = after.add("Sub", full, after.floats(threshold), dtype=FLOAT)
        shifted.shape = full.shape
        full = shifted
    for value, name in zip((full, iou, low_res), form.outputs, strict=False):
        graph.outputs.append(rename_output(graph, value, name, after))
    graph.insert_before(graph[0], before.made)
    graph.extend(after.made)
    return model


def _replace(graph: ir.Graph, old: ir.Value, new: ir.Value, used: ir.Value | None = None) -> None:
    """Append an input to the graph; `used`, or the input itself, takes the place of `old`."""
    graph.inputs.append(new)
    ir.convenience.replace_all_uses_with(old, used if used is not None else new)


def _add_prompts(
    graph: ir.Graph,
    nodes: Nodes,
    old: dict[str | None, ir.Value],
    interface: Interface,
    manifest: Manifest,
    count: int | str,
) -> Sequence[ir.Value]:
    """Replace the four prompt inputs. Return the tool's own inputs."""
    form, size = interface.decoder, manifest.preprocessing.image_size
    coords = tensor_input("point_coords", FLOAT, ("num_prompts", count, 2))
    labels = tensor_input("point_labels", FLOAT, ("num_prompts", count))
    ours, our_labels = _scaled(nodes, coords, interface.encoder, size), labels
    if form.pads_points:
        zero, padding = nodes.floats(0.0), nodes.floats(-1.0)
        ours = nodes.add("Pad", ours, nodes.integers([0, 0, 0, 0, 1, 0]), zero, dtype=FLOAT)
        our_labels = nodes.add(
            "Pad", our_labels, nodes.integers([0, 0, 0, 1]), padding, dtype=FLOAT
        )
    _replace(graph, old["point_coords"], coords, ours)
    _replace(graph, old["point_labels"], labels, our_labels)
    side = form.mask_side or size // 4
    mask = tensor_input("mask_input", FLOAT, ("num_prompts", 1, side, side))
    resized = mask
    if side != size // 4:
        resized = nodes.scale_square(mask, side, size // 4)
    _replace(graph, old["mask_input"], mask, resized)
    has_mask = tensor_input("has_mask_input", FLOAT, (1,))
    # osam passes -1 for "no mask", which would be read as twice no mask minus an empty one.
    switch = nodes.add("Clip", has_mask, nodes.floats(0.0), nodes.floats(1.0), dtype=FLOAT)
    _replace(graph, old["has_mask_input"], has_mask, switch)
    return coords, labels, mask, has_mask


def _scaled(nodes: Nodes, coords: ir.Value, encoder: EncoderForm, size: int) -> ir.Value:
    """Turn coordinates in the tool's square into coordinates in pixels of S."""
    square = encoder.square or size
    if square == size:
        return coords
    return nodes.add("Mul", coords, nodes.floats(size / square), dtype=FLOAT)


def _select(
    nodes: Nodes, low_res: ir.Value, iou: ir.Value, masks: Masks, coords: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Return logits [B, C, S/4, S/4] and predicted IoU [B, C] of the masks that the tool gets."""
    if masks == "four":
        return nodes.add("Identity", low_res, dtype=FLOAT), nodes.add("Identity", iou, dtype=FLOAT)
    if masks == "three":
        start, end, axis = nodes.integers([1]), nodes.integers([4]), nodes.integers([1])
        sliced = [nodes.add("Slice", v, start, end, axis, dtype=FLOAT) for v in (low_res, iou)]
        return sliced[0], sliced[1]
    count = nodes.add("Shape", coords, dtype=INT64, start=1, end=2)
    excess = nodes.add(
        "Sub", nodes.add("Cast", count, dtype=FLOAT, to=FLOAT), nodes.floats(_FEW_POINTS)
    )
    weight = nodes.add("Mul", excess, nodes.floats([_FIRST_MASK_WEIGHT]), dtype=FLOAT)
    score = nodes.add("Add", iou, weight, dtype=FLOAT)
    best = nodes.add("ArgMax", score, dtype=INT64, axis=1, keepdims=1)  # [B, 1]
    axis = nodes.integers([1])
    chosen = [nodes.add("GatherND", v, best, dtype=FLOAT, batch_dims=1) for v in (low_res, iou)]
    kept = [nodes.add("Unsqueeze", value, axis, dtype=FLOAT) for value in chosen]
    return kept[0], kept[1]


def _enlarge(nodes: Nodes, low_res: ir.Value, size: ir.Value, manifest: Manifest) -> ir.Value:
    """Enlarge logits to the image's size [B, C, H, W], as the manifest's postprocessing says."""
    side = manifest.preprocessing.image_size
    wanted = nodes.add("Cast", size, dtype=INT64, to=INT64)
    if manifest.postprocessing.upscale == "bilinear_direct":
        return nodes.enlarge(low_res, wanted)
    square = nodes.enlarge(low_res, nodes.integers([side, side]))
    exact = nodes.add("Cast", size, dtype=FLOAT, to=FLOAT)
    longest = nodes.add("ReduceMax", exact, dtype=FLOAT, keepdims=1)
    factor = nodes.add("Div", nodes.floats([side]), longest, dtype=FLOAT)
    product = nodes.add("Mul", factor, exact, dtype=FLOAT)
    half_up = nodes.add("Add", product, nodes.floats(0.5), dtype=FLOAT)
    rounded = nodes.add("Floor", half_up, dtype=FLOAT)
    resized = nodes.add("Cast", rounded, dtype=INT64, to=INT64)
    at_least_one = nodes.add("Max", resized, nodes.integers([1]), dtype=INT64)
    starts, axes = nodes.integers([0, 0]), nodes.integers([2, 3])
    cropped = nodes.add("Slice", square, starts, at_least_one, axes, dtype=FLOAT)
    return nodes.enlarge(cropped, wanted)

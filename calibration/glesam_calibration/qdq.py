"""Insert Q/DQ nodes into a graph: symmetric, weights per output channel, activations per tensor.

Only the inputs of a layer are quantized, not its outputs. Biases, residual additions,
normalisations and softmax therefore get float32, and each engine fuses what it can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from glesam_calibration.quantizable_layers import Layer

EightBit = Literal["int8", "fp8"]


@dataclass(frozen=True)
class Format:
    """An eight-bit type. Its zero point is always zero."""

    largest: float
    """The largest number in use. int8 does not use -128, so that the range is symmetric."""
    dtype: np.dtype
    opset: int
    """The first opset whose Q/DQ support the type."""


FORMATS: Mapping[EightBit, Format] = {
    "int8": Format(127.0, np.dtype(np.int8), 13),
    "fp8": Format(448.0, np.dtype(ml_dtypes.float8_e4m3fn), 19),
}


def scales_of(weights: NDArray[np.float32], axis: int, kind: EightBit) -> NDArray[np.float32]:
    """Return for each channel of an axis the scale that fits its largest magnitude to the type."""
    others = tuple(index for index in range(weights.ndim) if index != axis)
    return scale_for(np.abs(weights).max(axis=others), kind)


def scale_for(largest: NDArray[np.float32] | float, kind: EightBit) -> NDArray[np.float32]:
    """Return the scale that maps `largest` to the largest number of the type; 1 where it is 0."""
    magnitude = np.asarray(largest, np.float64)
    scale = np.where(magnitude > 0, magnitude / FORMATS[kind].largest, 1.0).astype(np.float32)
    # Subnormal weights would give a scale of 0, and a division by it gives NaN.
    return np.maximum(scale, np.finfo(np.float32).tiny)


def quantize(
    weights: NDArray[np.float32], scales: NDArray[np.float32], axis: int, kind: EightBit
) -> NDArray[np.generic]:
    """Quantize weights as QuantizeLinear does: round half to even, saturate."""
    shape = [1] * weights.ndim
    shape[axis] = -1
    form = FORMATS[kind]
    scaled = np.clip(weights / scales.reshape(shape), -form.largest, form.largest)
    if kind == "int8":
        scaled = np.rint(scaled)
    narrow: NDArray[np.generic] = scaled.astype(form.dtype)
    return narrow


def insert(
    model: ir.Model,
    layers: Sequence[Layer],
    ranges: Mapping[str, float] | None,
    kind: EightBit,
) -> None:
    """Quantize layers of a graph in place.

    Args:
        model: a float graph.
        layers: layers of this graph, from `find_layers`.
        ranges: largest magnitude to keep of each activation, by tensor name; None leaves
            activations in float, so that only the weights are stored in eight bits.
        kind: the eight-bit type.
    """
    graph = model.graph
    nodes = {node.name: node for node in graph}
    values = _values(graph)
    weights: dict[tuple[str, int], ir.Value] = {}
    activations: dict[str, ir.Value] = {}
    for layer in layers:
        node = nodes[layer.node]
        key = layer.weight, layer.axis
        if key not in weights:
            weights[key] = _dequantized_weight(graph, layer, kind)
        node.replace_input_with(1, weights[key])
        if ranges is None:
            continue
        if layer.activation not in activations:
            source = values[layer.activation]
            if kind == "fp8":
                source = _without_relu(graph, source)
            scale = scale_for(ranges[layer.activation], kind)
            step = add_initializer(graph, f"{source.name}.scale", scale)
            zero = add_initializer(graph, f"{source.name}.zero", zero_of(kind))
            activations[layer.activation] = requantized(graph, source, step, zero, str(source.name))
        node.replace_input_with(0, activations[layer.activation])
    _drop_unused(graph, {layer.weight for layer in layers})
    # Opset 19 differs from 18 only in the types that operations support.
    model.opset_imports[""] = max(model.opset_imports[""], FORMATS[kind].opset)


def _values(graph: ir.Graph) -> dict[str, ir.Value]:
    """Return every tensor that is computed by the graph or given to it, by name."""
    made = {output.name: output for node in graph for output in node.outputs if output.name}
    return {**{value.name: value for value in graph.inputs if value.name}, **made}


def _dequantized_weight(graph: ir.Graph, layer: Layer, kind: EightBit) -> ir.Value:
    """Store a weight in eight bits, and return it dequantized to float32 by DequantizeLinear."""
    tensor = graph.initializers[layer.weight].const_value
    assert tensor is not None, "find_layers accepts only initializers as weights"
    weights = tensor.numpy()
    scales = scales_of(weights, layer.axis, kind)
    quantized = quantize(weights, scales, layer.axis, kind)
    stem = f"{layer.weight}.axis{layer.axis}"
    inputs = [
        add_initializer(graph, f"{stem}.{kind}", quantized),
        add_initializer(graph, f"{stem}.scale", scales),
        add_initializer(graph, f"{stem}.zero", np.zeros(scales.shape, FORMATS[kind].dtype)),
    ]
    axis = [ir.AttrInt64("axis", layer.axis)]
    node = ir.Node("", "DequantizeLinear", inputs, axis, name=f"{stem}.dequantize")
    _name_output(node, f"{stem}.dequantized", ir.DataType.FLOAT, ir.Shape(weights.shape))
    graph.insert_before(_first(graph), node)
    return node.outputs[0]


def zero_of(kind: EightBit) -> NDArray[np.generic]:
    """Return the zero point of a whole tensor."""
    return np.zeros((), FORMATS[kind].dtype)


def requantized(
    graph: ir.Graph, source: ir.Value, scale: ir.Value, zero: ir.Value, stem: str
) -> ir.Value:
    """Quantize an activation and return it dequantized; its readers stay as they are.

    Args:
        graph: the graph that the nodes are added to.
        source: the activation, float32.
        scale: of the whole tensor, float32.
        zero: the zero point, whose type is the eight-bit type.
        stem: how names of the new nodes and values start.
    """
    narrow = ir.Node("", "QuantizeLinear", [source, scale, zero], name=f"{stem}.quantize")
    assert zero.dtype is not None, "an initializer has a type"
    _name_output(narrow, f"{stem}.quantized", zero.dtype, source.shape)
    inputs = [narrow.outputs[0], scale, zero]
    wide = ir.Node("", "DequantizeLinear", inputs, name=f"{stem}.dequantize")
    _name_output(wide, f"{stem}.dequantized", ir.DataType.FLOAT, source.shape)
    producer = source.producer()
    if producer is None:
        graph.insert_before(_first(graph), [narrow, wide])
    else:
        graph.insert_after(producer, [narrow, wide])
    return wide.outputs[0]


def _without_relu(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Replace a Relu by Max(x, 0), which gives the same values.

    ONNX Runtime (1.32) drops a Relu before a QuantizeLinear whose zero point is 0. That is right
    for uint8, which cuts off negative numbers. In float8 they would pass through.
    """
    relu = value.producer()
    if relu is None or relu.op_type != "Relu":
        return value
    zero = add_initializer(graph, f"{value.name}.least", np.zeros((), np.float32))
    node = ir.Node("", "Max", [relu.inputs[0], zero], name=f"{relu.name}.max")
    _name_output(node, f"{value.name}.max", ir.DataType.FLOAT, value.shape)
    graph.insert_after(relu, node)
    for reader, index in tuple(value.uses()):
        reader.replace_input_with(index, node.outputs[0])
    graph.remove(relu, safe=True)
    return node.outputs[0]


def _first(graph: ir.Graph) -> ir.Node:
    return next(iter(graph))


def add_initializer(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Add a constant to a graph."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def _name_output(node: ir.Node, name: str, dtype: ir.DataType, shape: ir.Shape | None) -> None:
    (output,) = node.outputs
    output.name, output.dtype = name, dtype
    output.shape = None if shape is None else shape.copy()


def _drop_unused(graph: ir.Graph, names: set[str]) -> None:
    """Delete float weights that no node reads any more."""
    for name in names:
        value = graph.initializers.get(name)
        if value is not None and not value.uses() and value not in graph.outputs:
            del graph.initializers[name]

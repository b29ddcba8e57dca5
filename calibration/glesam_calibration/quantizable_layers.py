"""Find the layers of a graph that can be quantized, and name them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

LEAST_INPUTS = 16
"""Minimum number of inputs that a layer sums per output. Smaller operations cost little in float,
and many are no layers: two coordinates times SAM's frequencies, one channel of a mask prompt."""


@dataclass(frozen=True)
class Layer:
    """A convolution or matrix product with constant weights.

    `axis` is the axis of output channels of the weight, `summed` are the axes that an output sums
    over.
    """

    name: str
    """The name of its weights in the checkpoint, if the graph still has it."""
    node: str
    op: str
    activation: str
    """Name of the input tensor."""
    weight: str
    """Name of the initializer."""
    axis: int
    summed: tuple[int, ...]
    elements: int
    """Number of elements of the weight."""


def find_layers(graph: ir.Graph) -> tuple[Layer, ...]:
    """Return every layer that can be quantized, in the order of the graph.

    Biases, softmax, normalisations, additions and products of two activations (as in attention)
    stay float32.
    """
    found = [layer for node in graph if (layer := _layer_of(node)) is not None]
    return tuple(_with_unique_names(_placed(found)))


def is_quantized(graph: ir.Graph) -> bool:
    """Return whether a graph already has Q/DQ nodes or integer arithmetic."""
    return any(
        node.op_type.startswith(("Quantize", "Dequantize", "QLinear", "DynamicQuantize"))
        or node.op_type.endswith("Integer")
        for node in graph
    )


def block_of(name: str) -> str:
    """Return the block of a layer: its name up to the last number, or the whole name."""
    parts = name.split(".")
    numbers = [index for index, part in enumerate(parts[:-1]) if part.isdecimal()]
    return ".".join(parts[: numbers[-1] + 1]) if numbers else name


def _layer_of(node: ir.Node) -> Layer | None:
    if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm") or node.domain:
        return None
    activation, weight = node.inputs[0], node.inputs[1]
    if activation is None or weight is None or weight.name is None or activation.name is None:
        return None
    if weight.const_value is None or not weight.is_initializer() or _is_constant(activation):
        return None
    if weight.dtype != ir.DataType.FLOAT:
        return None
    shape = weight.const_value.shape.numpy()
    axes = _axes(node, len(shape))
    if axes is None:
        return None
    axis, summed = axes
    count = 1
    for index in summed:
        count *= shape[index]
    if count < LEAST_INPUTS:
        return None
    return Layer(
        name=_name_of(node, weight.name),
        node=node.name or "",
        op=node.op_type,
        activation=activation.name,
        weight=weight.name,
        axis=axis,
        summed=summed,
        elements=weight.const_value.size,
    )


def _is_constant(value: ir.Value) -> bool:
    return value.const_value is not None or value.is_initializer()


def _axes(node: ir.Node, rank: int) -> tuple[int, tuple[int, ...]] | None:
    """Return the axis of output channels and the summed axes; None if the node is not quantized."""
    if node.op_type == "Conv":
        return 0, tuple(range(1, rank))
    if node.op_type == "ConvTranspose":
        # With groups, the axis of output channels counts only within a group.
        return None if _integer(node, "group", 1) != 1 else (1, (0,))
    if rank != 2:
        return None
    if node.op_type == "Gemm":
        if _integer(node, "transA", 0):
            return None
        return (0, (1,)) if _integer(node, "transB", 0) else (1, (0,))
    return 1, (0,)


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _name_of(node: ir.Node, weight: str) -> str:
    """Name a layer by its weight or bias; exporters rename weights, but rarely biases."""
    names = [weight, *(value.name or "" for value in node.inputs[2:3] if value is not None)]
    names += [name for use in node.outputs[0].uses() for name in _added(use.node)]
    for name in names:
        stem, _, kind = name.rpartition(".")
        if stem and kind in ("weight", "bias"):
            return stem
    return node.name or weight


def _added(node: ir.Node) -> Iterator[str]:
    """Yield the names of the constants that an Add node adds."""
    if node.op_type == "Add":
        for value in node.inputs:
            if value is not None and value.is_initializer() and value.name:
                yield value.name


def _placed(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Put a layer without a name of its own into the block of the layer before it."""
    block = ""
    for layer in layers:
        if layer.name == layer.node and block:
            yield replace(layer, name=f"{block}.{layer.node}")
        else:
            block = block_of(layer.name)
            yield layer


def _with_unique_names(layers: Iterable[Layer]) -> Iterator[Layer]:
    seen: Counter[str] = Counter()
    for layer in layers:
        seen[layer.name] += 1
        number = seen[layer.name]
        yield layer if number == 1 else replace(layer, name=f"{layer.name}#{number}")

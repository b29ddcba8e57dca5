"""Quantize the two products of attention to eight-bit floats.

TensorRT fuses such an attention into one kernel that multiplies float8, and accumulates in float32.
Integers are not offered: one scale for all of softmax's weights turns most of 4,096 small ones into
zero, and TensorRT-RTX has no fused kernel for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from glesam_calibration.attentions import Attention, attentions, permutation
from glesam_calibration.qdq import FORMATS, EightBit, requantized

LARGEST_WEIGHT = 1.0
"""Softmax's weights are at most 1."""


@dataclass(frozen=True)
class Operand:
    """Queries, keys or values of an attention, with the node that reads them whole.

    Heads may be computed one after another; the node then cuts one out.
    """

    source: ir.Value
    reader: ir.Node
    place: int
    """Index of the source among the reader's inputs."""


def find_operands(graph: ir.Graph) -> list[tuple[Attention, tuple[Operand, ...]]]:
    """Return every attention whose products can be quantized, with its queries, keys and values.

    Attention to constant keys stays float32, and so does one whose operands other nodes read after
    they were cut or transposed.
    """
    found = []
    for attention in attentions(graph):
        places = ((attention.scores, 0), (attention.scores, 1), (attention.weighted, 1))
        operands = tuple(each for place in places if (each := _operand(*place)) is not None)
        if attention.has_computed_keys and len(operands) == len(places):
            found.append((attention, operands))
    return found


def operand_names(graph: ir.Graph) -> Iterator[str]:
    """Yield the names of the tensors whose ranges `insert` needs, each once."""
    sources = (each.source for _, operands in find_operands(graph) for each in operands)
    yield from dict.fromkeys(source.name for source in sources if source.name)


def insert(model: ir.Model, ranges: Mapping[str, float], kind: EightBit) -> int:
    """Quantize the operands of every attention in place.

    Scales are powers of two, so that a reader may dequantize to float16 without another rounding.
    Floats lose nothing by that.

    Args:
        model: a float graph, whose layers may be quantized already.
        ranges: largest magnitude of each tensor of `operand_names`.
        kind: the eight-bit type.

    Returns:
        The number of attentions that were quantized.
    """
    graph = model.graph
    found = find_operands(graph)
    made: dict[str, ir.Value] = {}

    def narrow(source: ir.Value, largest: float, stem: str) -> ir.Value:
        return requantized(graph, source, _power_of_two(largest, kind), kind, stem)

    for number, (attention, operands) in enumerate(found):
        for each in operands:
            name = each.source.name or ""
            if name not in made:
                made[name] = narrow(each.source, ranges[name], f"{name}.attention")
            each.reader.replace_input_with(each.place, made[name])
        weights = attention.softmax.outputs[0]
        readers = list(weights.uses())
        quantized = narrow(weights, LARGEST_WEIGHT, f"attention_weights_{number}")
        for reader, place in readers:
            reader.replace_input_with(place, quantized)
    model.opset_imports[""] = max(model.opset_imports[""], FORMATS[kind].opset)
    return len(found)


def _operand(node: ir.Node, place: int) -> Operand | None:
    """Follow an operand back past the transpose of keys and past the cut of a head."""
    value = node.inputs[place]
    producer = value.producer() if value is not None else None
    if producer is not None and place and _turns_last_axes(producer):
        if len(producer.outputs[0].uses()) > 1:
            return None
        node, place, value = producer, 0, producer.inputs[0]
        producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "Slice":
        if len(producer.outputs[0].uses()) > 1:
            return None
        node, place, value = producer, 0, producer.inputs[0]
        producer = value.producer() if value is not None else None
    return None if value is None or producer is None else Operand(value, node, place)


def _turns_last_axes(node: ir.Node) -> bool:
    """Return whether a node transposes the last two of several axes."""
    axes = permutation(node) if node.op_type == "Transpose" else ()
    rank = len(axes)
    return rank > 1 and axes == (*range(rank - 2), rank - 1, rank - 2)


def _power_of_two(largest: float, kind: EightBit) -> float:
    """Return the smallest power of two that scales `largest` into the type; 1 for 0."""
    if largest == 0:
        return 1.0
    return float(2.0 ** math.ceil(math.log2(largest / FORMATS[kind].largest)))

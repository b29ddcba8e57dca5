"""Quantize the two products of attention to eight-bit floats.

TensorRT fuses such an attention into one kernel that multiplies float8, and accumulates in float32.
Integers are not offered: one scale for all of softmax's weights turns most of 4,096 small ones into
zero, and TensorRT-RTX has no fused kernel for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from glesam_calibration import qdq
from glesam_calibration.attentions import Attention, attentions, permutation

LARGEST_WEIGHT = 1.0
"""Softmax's weights are at most 1."""

LEAST_KEYS = 32
"""TensorRT-RTX 1.7 fuses no float8 attention to fewer keys, or to a number of them that is not
known. In float16 it does."""

LARGEST_SCALE = 2.0**7
"""448 times the next power of two is more than float16 holds, in which TensorRT dequantizes."""

LEAST_SCALE = 2.0**-24
"""The smallest number of float16."""


@dataclass(frozen=True)
class Operand:
    """Queries, keys or values of an attention, with the node that reads them whole.

    Heads may be computed one after another; the node then cuts one out.
    """

    source: ir.Value
    reader: ir.Node
    place: int
    """Index of the source among the reader's inputs."""

    @property
    def name(self) -> str:
        """Return the name of the source."""
        return self.source.name or ""


def find_operands(graph: ir.Graph) -> list[tuple[Attention, tuple[Operand, ...]]]:
    """Return every attention whose products can be quantized, with its queries, keys and values.

    Attention to constant or few keys stays float32, and so does one whose operands other nodes read
    after they were cut or transposed.
    """
    found = []
    for attention in attentions(graph):
        shape = attention.scores.outputs[0].shape
        keys = shape[-1] if shape is not None else None
        if not isinstance(keys, int) or keys < LEAST_KEYS:
            continue
        places = ((attention.scores, 0), (attention.scores, 1), (attention.weighted, 1))
        operands = tuple(each for place in places if (each := _operand(*place)) is not None)
        if attention.has_computed_keys and len(operands) == len(places):
            found.append((attention, operands))
    return found


def operand_names(graph: ir.Graph) -> Iterator[str]:
    """Yield the names of the tensors whose ranges `insert` needs, each once."""
    yield from dict.fromkeys(each.name for _, operands in find_operands(graph) for each in operands)


def insert(model: ir.Model, ranges: Mapping[str, float], kind: qdq.EightBit) -> int:
    """Quantize the operands of every attention in place.

    Scales are powers of two, so that a reader may dequantize to float16 without another rounding.
    Floats lose nothing by that. An attention stays float32 if float16 may not hold its operands.

    Each operand has a scale of its own and all weights share one, so that the names of a graph do
    not depend on the ranges.

    Args:
        model: a float graph, whose layers may be quantized already.
        ranges: largest magnitude of each tensor of `operand_names`.
        kind: the eight-bit type.

    Returns:
        The number of attentions that were quantized.
    """
    graph = model.graph
    scales = {name: _power_of_two(largest, kind) for name, largest in ranges.items()}
    chosen = [
        (attention, operands)
        for attention, operands in find_operands(graph)
        if all(scales[each.name] <= LARGEST_SCALE for each in operands)
    ]
    if not chosen:
        return 0
    zero = qdq.add_initializer(graph, "attention.zero", qdq.zero_of(kind))
    shared = _scale(graph, "attention_weights", _power_of_two(LARGEST_WEIGHT, kind))
    made: dict[str, ir.Value] = {}
    for number, (attention, operands) in enumerate(chosen):
        for each in operands:
            if each.name not in made:
                stem = f"{each.name}.attention"
                step = _scale(graph, stem, scales[each.name])
                made[each.name] = qdq.requantized(graph, each.source, step, zero, stem)
            each.reader.replace_input_with(each.place, made[each.name])
        weights, stem = attention.softmax.outputs[0], f"attention_weights_{number}"
        readers = list(weights.uses())
        quantized = qdq.requantized(graph, weights, shared, zero, stem)
        for reader, place in readers:
            reader.replace_input_with(place, quantized)
    model.opset_imports[""] = max(model.opset_imports[""], qdq.FORMATS[kind].opset)
    return len(chosen)


def _scale(graph: ir.Graph, stem: str, scale: float) -> ir.Value:
    return qdq.add_initializer(graph, f"{stem}.scale", np.asarray(scale, np.float32))


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
    if value is None or producer is None or producer.op_type in _NO_SOURCES:
        return None
    return Operand(value, node, place)


_NO_SOURCES = ("DequantizeLinear", "Max", "Relu")
"""A weight, and what `qdq.insert` may replace."""


def _turns_last_axes(node: ir.Node) -> bool:
    """Return whether a node transposes the last two of several axes."""
    axes = permutation(node) if node.op_type == "Transpose" else ()
    rank = len(axes)
    return rank > 1 and axes == (*range(rank - 2), rank - 1, rank - 2)


def _power_of_two(largest: float, kind: qdq.EightBit) -> float:
    """Return the smallest power of two that scales `largest` into the type; 1 for 0."""
    if largest == 0:
        return 1.0
    return max(LEAST_SCALE, 2.0 ** math.ceil(math.log2(largest / qdq.FORMATS[kind].largest)))

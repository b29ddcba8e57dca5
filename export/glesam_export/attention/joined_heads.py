"""Joins heads that a graph computes one after another into one attention again.

`graphs.Attend` cuts queries, keys, values and positions along the heads, computes each piece and
concatenates the results. This finds the concatenation, checks that all its pieces do the same with
the same tensors, and lets the first piece do it for all heads: it reads the whole tensors instead
of its slices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from glesam_calibration.attentions import permutation

HEADS = 1
"""The axis of the heads in every tensor of an attention: [N, heads, ...]."""

ELEMENTWISE = frozenset({"Add", "Cast", "DequantizeLinear", "Mul", "QuantizeLinear"})
"""Operations of each number alone, if their other inputs are of the same rank or scalars."""


def join_heads(graph: ir.Graph) -> int:
    """Join the heads of every attention that is computed in pieces, in place.

    The pieces' nodes stay in the graph, unused; `RemoveUnusedNodesPass` removes them.

    Returns:
        The number of attentions that were in pieces.
    """
    count = 0
    for node in list(graph):
        if node.op_type != "Concat" or node.attributes.get_int("axis") != HEADS:
            continue
        whole, first = node.outputs[0], node.inputs[0]
        pieces = [value for value in node.inputs if value is not None]
        if len(pieces) < 2 or first is None or whole.is_graph_output():
            continue
        joint = _Pieces(pieces)
        if joint.found and joint.ends:
            joint.join()
            for reader, index in list(whole.uses()):
                reader.replace_input_with(index, first)
            count += 1
    return count


class _Pieces:
    """What leads from the slices of some tensors to the pieces of an attention.

    Attributes:
        found: whether all pieces are computed alike, from slices that make up whole tensors.
        ends: uses of the first piece's slices: a node, the input's index, the whole tensor.
        nodes: the first piece's nodes, without its slices, in the order of their results.
        heads: the heads of the first piece, and of all.
    """

    def __init__(self, pieces: Sequence[ir.Value]) -> None:
        self.ends: list[tuple[ir.Node, int, ir.Value]] = []
        self.nodes: list[ir.Node] = []
        sizes = [_heads(piece) for piece in pieces]
        self.heads = sizes[0], sum(sizes)
        self._starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        self.found = 0 not in sizes and self._follow(pieces)

    def join(self) -> None:
        """Let the first piece compute all heads, in place."""
        for node, index, source in self.ends:
            node.replace_input_with(index, source)
        piece, whole = self.heads
        for node in self.nodes:
            (output,) = node.outputs
            assert output.shape is not None, "_follow checks it"
            dims = list(output.shape)
            dims[HEADS] = whole
            output.shape = ir.Shape(dims)
            if node.op_type == "Reshape":
                _widen(node, piece, whole)

    def _follow(self, values: Sequence[ir.Value]) -> bool:
        """Follow corresponding values of all pieces to the slices that they start from."""
        nodes = [value.producer() for value in values]
        first = nodes[0]
        if first is None or any(not _alike(first, node) for node in nodes[1:]):
            return False
        if any(len(value.uses()) != 1 or value.is_graph_output() for value in values):
            return False
        if not _keeps_heads(first, self.heads[0]):
            return False
        known, ends = [node for node in nodes if node is not None], len(self.ends)
        for index, value in enumerate(first.inputs):
            inputs = [node.inputs[index] for node in known]
            if all(other is value for other in inputs):
                # A constant, or a tensor that all heads share.
                if value is not None and index < _tensors(first) and _heads(value) > 1:
                    return False
                continue
            given = [each for each in inputs if each is not None]
            if len(given) < len(inputs) or value is None:
                return False
            source = self._sliced(given)
            if source is not None:
                self.ends.append((first, index, source))
            elif index >= _tensors(first) or not self._follow(given):
                return False
        self.nodes.append(first)
        # Without a slice behind it, a value would keep the heads of a piece.
        return len(self.ends) > ends

    def _sliced(self, values: Sequence[ir.Value]) -> ir.Value | None:
        """Return the tensor whose heads these are, in their order and without a gap, or None."""
        source: ir.Value | None = None
        for i, value in enumerate(values):
            node = value.producer()
            if node is None or node.op_type != "Slice" or len(node.inputs) != 5:
                return None
            given, *bounds = node.inputs
            start, end, axis, step = (_constant(each) for each in bounds)
            if axis != (HEADS,) or step != (1,) or (source is not None and given is not source):
                return None
            if start != (self._starts[i],) or end != (self._starts[i + 1],):
                return None
            source = given
        return source if source is not None and _heads(source) == self.heads[1] else None


def _tensors(node: ir.Node) -> int:
    """Return how many of a node's inputs are tensors; shapes and axes follow them."""
    return 1 if node.op_type in ("Reshape", "Unsqueeze") else len(node.inputs)


def _keeps_heads(node: ir.Node, heads: int) -> bool:
    """Return whether a node computes each index of axis 1 from the same index of its inputs."""
    (output, *others) = node.outputs
    rank = len(output.shape) if output.shape is not None else 0
    if others or rank < 4 or _heads(output) != heads:
        return False
    if node.op_type in ELEMENTWISE or node.op_type == "MatMul":
        # Of fewer dimensions, an input would be broadcast, and axis 1 would be another axis.
        return all(
            value is not None and value.shape is not None and len(value.shape) in (0, rank)
            for value in node.inputs
        )
    if node.op_type == "Softmax":
        return node.attributes.get_int("axis") in (-1, rank - 1)
    if node.op_type == "Transpose":
        return permutation(node)[: HEADS + 1] == (0, HEADS)
    if node.op_type == "Unsqueeze" and len(node.inputs) == 2:
        axes = _constant(node.inputs[1])
        return axes is not None and all(axis % rank > HEADS for axis in axes)
    if node.op_type == "Reshape" and len(node.inputs) == 2:
        value, shape = node.inputs[0], _constant(node.inputs[1])
        if value is None or value.shape is None or output.shape is None or shape is None:
            return False
        if len(shape) <= HEADS or shape[HEADS] not in (heads, 0):
            return False
        # Equal sizes of both first axes, or heads of different images may be mixed.
        return _heads(value) == heads and value.shape[0] == output.shape[0]
    return False


def _alike(node: ir.Node, other: ir.Node | None) -> bool:
    """Return whether two nodes are the same operation with the same attributes."""
    return (
        other is not None
        and (node.op_type, node.domain) == (other.op_type, other.domain)
        and len(node.inputs) == len(other.inputs)
        and {name: each.value for name, each in node.attributes.items()}
        == {name: each.value for name, each in other.attributes.items()}
    )


def _widen(node: ir.Node, piece: int, whole: int) -> None:
    """Let a Reshape whose shape has the heads of a piece make a tensor of all heads."""
    shape = node.inputs[1]
    wanted = list(_constant(shape) or ())
    assert shape is not None, "_keeps_heads checks it"
    assert wanted[HEADS] in (piece, 0), "the heads of the output are those of the piece"
    if wanted[HEADS]:
        wanted[HEADS] = whole
    name = f"{node.outputs[0].name}_shape"
    value = ir.Value(name=name, const_value=ir.tensor(np.asarray(wanted, np.int64), name=name))
    value.dtype, value.shape = ir.DataType.INT64, ir.Shape([len(wanted)])
    graph = node.graph
    assert isinstance(graph, ir.Graph), "the node is in a graph, not in a function"
    graph.register_initializer(value)
    node.replace_input_with(1, value)


def _heads(value: ir.Value) -> int:
    """Return the size of axis 1, or 0 if it is not known."""
    shape = value.shape
    size = shape[HEADS] if shape is not None and len(shape) > HEADS else 0
    return size if isinstance(size, int) else 0


def _constant(value: ir.Value | None) -> tuple[int, ...] | None:
    """Return a constant's integers, or None if the value is computed."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tuple(int(each) for each in tensor.numpy().ravel())

"""Move the scale of outlier channels from activations into weights (SmoothQuant, 2211.10438).

SAM's encoder has a few channels that are a hundred times as large as the rest. With one scale per
tensor, the other channels get almost no precision. Where a LayerNorm feeds only layers, its gain
and offset are divided by a factor per channel, and the weights of the layers are multiplied by it.
The function stays the same, with more even numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from glesam_calibration.qdq import add_initializer
from glesam_calibration.quantizable_layers import Layer
from glesam_calibration.statistics import Statistics


@dataclass(frozen=True)
class Site:
    """A LayerNorm and the layers that it feeds."""

    norm: str
    """Name of the node."""
    layers: tuple[Layer, ...]


def find_sites(graph: ir.Graph, layers: Sequence[Layer]) -> tuple[Site, ...]:
    """Return every LayerNorm over the last axis whose output reaches only matrix products.

    Nodes that move tokens but not channels may lie in between: reshapes, transposes, and the
    padding of windows.
    """
    by_node = {layer.node: layer for layer in layers}
    sites = []
    for node in graph:
        if node.op_type != "LayerNormalization" or len(node.inputs) < 3:
            continue
        constants = node.inputs[1:3]
        if any(value is None or not value.is_initializer() for value in constants):
            continue
        reached = _reached(node.outputs[0], graph, by_node)
        if reached and node.name:
            sites.append(Site(node.name, tuple(reached)))
    return tuple(sites)


def migrate(
    graph: ir.Graph, sites: Sequence[Site], seen: Mapping[str, Statistics], alpha: float
) -> dict[str, float]:
    """Smooth a graph in place.

    Args:
        graph: a float graph in which no other node reads the weights of the sites' layers.
        sites: sites from `find_sites`.
        seen: statistics, with channels, of the inputs of the sites' layers.
        alpha: 0 moves no scale to the weights, 1 moves all of it.

    Returns:
        The largest magnitude of each smoothed activation, by tensor name.
    """
    nodes = {node.name: node for node in graph}
    ranges: dict[str, float] = {}
    for site in sites:
        flowing = {layer.activation: _channels(seen, layer) for layer in site.layers}
        activations = np.max(list(flowing.values()), axis=0)
        weights = np.max([_weight_rows(graph, layer) for layer in site.layers], axis=0)
        factors = _factors(activations, weights, alpha)
        norm = nodes[site.norm]
        for index in (1, 2):
            value = norm.inputs[index]
            assert value is not None, "find_sites looked"
            _replace(graph, norm, index, _array(value) / factors)
        for layer in _distinct(site.layers):
            weight = graph.initializers[layer.weight]
            column = factors if layer.summed == (1,) else factors[:, None]
            weight.const_value = ir.tensor(_array(weight) * column, name=weight.name)
        ranges |= {name: float((found / factors).max()) for name, found in flowing.items()}
    return ranges


def _reached(value: ir.Value, graph: ir.Graph, by_node: Mapping[str, Layer]) -> list[Layer] | None:
    """Return the layers that read a tensor, its last axis unchanged; None if others read it."""
    layers: list[Layer] = []
    if value in graph.outputs or not value.uses():
        return None
    for use in value.uses():
        node = use.node
        layer = by_node.get(node.name or "")
        if layer is not None and use.idx == 0 and layer.op in ("MatMul", "Gemm"):
            # A weight that another node reads too cannot be changed for this site.
            if len(graph.initializers[layer.weight].uses()) != 1:
                return None
            layers.append(layer)
            continue
        if use.idx != 0 or not _keeps_channels(node):
            return None
        further = _reached(node.outputs[0], graph, by_node)
        if further is None:
            return None
        layers += further
    return layers


def _keeps_channels(node: ir.Node) -> bool:
    """Return whether a node only moves rows of channels, or adds rows of 0."""
    source, result = node.inputs[0], node.outputs[0]
    if source is None or source.shape is None or result.shape is None:
        return False
    before, after = source.shape[-1], result.shape[-1]
    if not isinstance(before, int) or before != after:
        return False
    if node.op_type == "Transpose":
        order = node.attributes["perm"].as_ints()
        return order[-1] == len(order) - 1
    if node.op_type == "Pad":
        mode = node.attributes.get("mode")
        fill = node.inputs[2] if len(node.inputs) > 2 else None
        zeros = fill is None or (
            fill.const_value is not None and not fill.const_value.numpy().any()
        )
        return zeros and (mode is None or mode.as_string() == "constant")
    return node.op_type == "Reshape"


def _factors(
    activations: NDArray[np.float32], weights: NDArray[np.float32], alpha: float
) -> NDArray[np.float32]:
    """Return the divisor of each channel: a^alpha / w^(1 - alpha), or 1 where a or w is 0."""
    a, w = activations.astype(np.float64), weights.astype(np.float64)
    usable = (a > 0) & (w > 0)
    factors = np.ones_like(a)
    factors[usable] = a[usable] ** alpha / w[usable] ** (1 - alpha)
    return np.clip(factors, 1e-5, 1e5).astype(np.float32)


def _channels(seen: Mapping[str, Statistics], layer: Layer) -> NDArray[np.float32]:
    channels = seen[layer.activation].channels
    assert channels is not None, "taken of every matrix product's input"
    return channels


def _weight_rows(graph: ir.Graph, layer: Layer) -> NDArray[np.float32]:
    """Return the largest magnitude of the weights of each input channel."""
    found: NDArray[np.float32] = np.abs(_array(graph.initializers[layer.weight])).max(
        axis=layer.axis
    )
    return found


def _distinct(layers: Sequence[Layer]) -> list[Layer]:
    return list({layer.weight: layer for layer in layers}.values())


def _array(value: ir.Value) -> NDArray[np.float32]:
    assert value.const_value is not None, "an initializer"
    return value.const_value.numpy()


def _replace(graph: ir.Graph, node: ir.Node, index: int, array: NDArray[np.float32]) -> None:
    """Replace a node's constant by a new one, because nodes may share the old one."""
    old = node.inputs[index]
    assert old is not None, "replaced by its like"
    value = add_initializer(graph, f"{node.name}.smoothed.{index}", array)
    node.replace_input_with(index, value)
    if not old.uses() and old.name:
        del graph.initializers[old.name]

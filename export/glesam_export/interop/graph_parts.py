"""Adds nodes to a graph: the small operations that the tools' interfaces need around ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, NDArray
from PIL import Image

Attribute: TypeAlias = "int | float | str | Sequence[int]"
Dimension: TypeAlias = "int | str"


class Nodes:
    """Collects new nodes and their constants, in order, for one graph."""

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self._graph, self._prefix = graph, prefix
        self.made: list[ir.Node] = []

    def constant(self, values: ArrayLike, dtype: type[np.generic]) -> ir.Value:
        """Add an initializer."""
        array: NDArray[np.generic] = np.asarray(values, dtype)
        name = f"{self._prefix}.constant_{len(self._graph.initializers)}"
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            const_value=ir.tensor(array, name=name),
        )
        self._graph.register_initializer(value)
        return value

    def add(
        self,
        operation: str,
        *inputs: ir.Value | None,
        dtype: ir.DataType | None = None,
        **attributes: Attribute,
    ) -> ir.Value:
        """Add a node with one output and return the output."""
        name = f"{self._prefix}.{operation}_{len(self.made)}"
        output = ir.Value(name=name, type=ir.TensorType(dtype) if dtype else None)
        given = {key: ir.convenience.convert_attribute(key, v) for key, v in attributes.items()}
        self.made.append(ir.Node("", operation, inputs, given, outputs=[output], name=f"{name}.n"))
        return output

    def floats(self, values: ArrayLike) -> ir.Value:
        """Add a float32 constant."""
        return self.constant(values, np.float32)

    def integers(self, values: ArrayLike) -> ir.Value:
        """Add an int64 constant."""
        return self.constant(values, np.int64)

    def enlarge(self, value: ir.Value, sizes: ir.Value) -> ir.Value:
        """Resize the last two of four axes to `sizes`, int64 [2], as PyTorch's interpolate does."""
        return self.add(
            "Resize",
            value,
            None,
            None,
            sizes,
            dtype=ir.DataType.FLOAT,
            mode="linear",
            coordinate_transformation_mode="half_pixel",
            axes=[2, 3],
        )

    def scale_square(self, value: ir.Value, side: int, wanted: int) -> ir.Value:
        """Resize [..., side, side] to [..., wanted, wanted] with Pillow's antialiased filter.

        Two products with constant matrices, because not every engine runs Resize with antialias,
        and those that do differ from Pillow by 1e-4.
        """
        identity = Image.fromarray(np.eye(side, dtype=np.float32))
        matrix = np.asarray(identity.resize((side, wanted), Image.Resampling.BILINEAR))
        rows, columns = self.floats(matrix), self.floats(matrix.T)
        narrow = self.add("MatMul", value, columns, dtype=ir.DataType.FLOAT)
        return self.add("MatMul", rows, narrow, dtype=ir.DataType.FLOAT)


def tensor_input(name: str, dtype: ir.DataType, shape: Sequence[Dimension]) -> ir.Value:
    """Return a new graph input."""
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def join(first: ir.Model, second: ir.Model, links: Mapping[str, str], prefix: str) -> None:
    """Append the nodes of `second` to `first`, in place. `second` is used up.

    Args:
        first: the graph that runs first. Its outputs stay as they are.
        second: the graph that runs next.
        links: the inputs of `second` by name: the names of the outputs of `first`. It has all.
        prefix: prepended to the names of `second`, so that they differ from those of `first`.
    """
    target, source = first.graph, second.graph
    assert not {**first.functions, **second.functions}, "exported graphs are inlined"
    outputs = {value.name: value for value in target.outputs}
    for value in source.inputs:
        assert value.name is not None, "graph inputs have names"
        ir.convenience.replace_all_uses_with(value, outputs[links[value.name]])
    weights = list(source.initializers.values())
    source.initializers.clear()
    for weight in weights:
        weight.name = f"{prefix}.{weight.name}"
        target.register_initializer(weight)
    source.outputs.clear()
    nodes = list(source)
    source.remove(nodes)
    for node in nodes:
        node.name = f"{prefix}.{node.name}"
        for output in node.outputs:
            output.name = f"{prefix}.{output.name}"
    target.extend(nodes)
    # As in calibration: no operation of the graphs changed its meaning between these opsets.
    opset = max(first.opset_imports[""], second.opset_imports[""])
    first.opset_imports.update({**second.opset_imports, "": opset})


def rename_output(graph: ir.Graph, value: ir.Value, name: str, nodes: Nodes) -> ir.Value:
    """Return an output of the graph with this name that equals `value`."""
    output = nodes.add("Identity", value, dtype=ir.DataType.FLOAT)
    output.name, output.shape = name, value.shape
    return output

"""Where two runs of a stage part: every tensor of a graph compared, layer by layer.

A full-size graph's tensors fill more memory than there is, so they are asked for in groups, each
group a run of the whole graph on either side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from glesam_export import emulate
from glesam_runtime import compare

GROUP_BYTES = 1 << 30
"""Of tensors that are held at a time, on each side."""

Tensors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class LayerError:
    """One tensor on both sides.

    Attributes:
        tensor: its name in the graph.
        op_type: of the node that computes it.
        relative_l2: infinite where the other side is not finite.
        max_abs: largest difference.
        largest: absolute value on the reference side: near 65504, float16 ends.
    """

    tensor: str
    op_type: str
    relative_l2: float
    max_abs: float
    largest: float


class Side(Protocol):
    """One way to run a graph."""

    def run(self, names: Sequence[str], inputs: Tensors) -> Tensors:
        """The values of these tensors of the graph, as float32."""


def compare_layers(
    graph: ir.Graph, reference: Side, other: Side, inputs: Tensors
) -> Iterator[LayerError]:
    """Compare every floating-point tensor of a graph, in the order they are computed."""
    for group in _groups(graph):
        expected, found = reference.run(list(group), inputs), other.run(list(group), inputs)
        for name, op_type in group.items():
            if name not in found:
                continue  # fused away by an engine
            yield LayerError(
                name,
                op_type,
                compare.relative_l2(found[name], expected[name]),
                compare.max_abs(found[name], expected[name]),
                float(np.abs(expected[name]).max(initial=0.0)),
            )


class OnnxSide:
    """ONNX Runtime on a half-precision graph: rounding as the graph says, or not at all."""

    def __init__(self, graph: Path, folder: Path, *, rounded: bool) -> None:
        self._source, self._folder, self._rounded = graph, folder, rounded

    def run(self, names: Sequence[str], inputs: Tensors) -> Tensors:
        """Run the graph for these tensors."""
        import onnxruntime

        model = ir.load(self._source)
        by_name = {value.name: value for node in model.graph for value in node.outputs}
        wanted = [by_name[name] for name in names]
        seen = emulate.widen(model.graph, rounded=self._rounded)
        model.graph.outputs.clear()
        model.graph.outputs.extend(seen.get(value, value) for value in wanted)
        path = self._folder / f"{'rounded' if self._rounded else 'exact'}.onnx"
        ir.save(model, path, external_data=f"{path.name}.data")
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        given = {value.name: inputs[value.name] for value in session.get_inputs()}
        values = session.run(None, given)
        return {n: np.asarray(v, np.float32) for n, v in zip(names, values, strict=True)}


def _groups(graph: ir.Graph) -> Iterator[dict[str, str]]:
    """Names of tensors with their operation, as many at a time as memory is for."""
    group: dict[str, str] = {}
    size = 0
    for node in graph:
        for value in node.outputs:
            if value.dtype not in (*emulate.HALF, ir.DataType.FLOAT) or node.op_type == "Constant":
                continue
            assert value.name is not None, "traced graphs name their values"
            need = 4 * int(np.prod([d if isinstance(d, int) else 16 for d in value.shape or ()]))
            if group and size + need > GROUP_BYTES:
                yield group
                group, size = {}, 0
            group[value.name] = node.op_type
            size += need
    if group:
        yield group

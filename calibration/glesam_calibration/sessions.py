"""ONNX Runtime sessions of a stage that also give what flows inside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from glesam_runtime.errors import BackendError

_QUIET = 3
_FREE_AXIS = 4
"""What a free axis is taken for when memory is reckoned."""


class Watched:
    """A stage's graph whose outputs are its own and some of its inner tensors."""

    def __init__(self, path: Path, tensors: Sequence[str]) -> None:
        """Load a graph.

        Args:
            path: an .onnx file; weights in a file beside it stay there.
            tensors: which inner tensors to give as well.

        Raises:
            BackendError: onnxruntime is missing or refuses the graph.
        """
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise BackendError(
                f"onnxruntime cannot be imported ({error}); pip install 'glesam-deploy[cpu]'"
            ) from error
        proto = onnx.load(path, load_external_data=False)
        given = {value.name for value in proto.graph.input}
        made = {value.name for value in proto.graph.output}
        known = {info.name: info for info in proto.graph.value_info}
        self._echoed = [name for name in tensors if name in given]
        inner = [name for name in tensors if name not in given | made]
        proto.graph.output.extend(known.get(n, onnx.ValueInfoProto(name=n)) for n in inner)
        options = ort.SessionOptions()
        options.log_severity_level = _QUIET
        # Weights stay mapped from their file instead of being copied into another order.
        options.add_session_config_entry("session.disable_prepacking", "1")
        # Threads that wait for work busily take the time from others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(path.parent.resolve())
        )
        try:
            self._session: Any = ort.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise BackendError(f"{path}: onnxruntime cannot load it: {error}") from error
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """All outputs and watched tensors by name."""
        found = self._session.run(self._names, dict(inputs))
        results = dict(zip(self._names, found, strict=True))
        return results | {name: inputs[name] for name in self._echoed}


def groups(graph: ir.Graph, tensors: Sequence[str], budget: int) -> Iterator[list[str]]:
    """Part tensors so that those of one group together take at most `budget` bytes of a run.

    A tensor that takes more is a group of its own.
    """
    sizes = {value.name: _bytes(value) for value in graph.inputs}
    sizes |= {output.name: _bytes(output) for node in graph for output in node.outputs}
    group: list[str] = []
    held = 0
    for name in tensors:
        if group and held + sizes[name] > budget:
            yield group
            group, held = [], 0
        group.append(name)
        held += sizes[name]
    if group:
        yield group


def _bytes(value: ir.Value) -> int:
    """What a float32 tensor takes; of one whose shape is not known nothing is reckoned."""
    if value.shape is None:
        return 0
    sizes = [axis if isinstance(axis, int) else _FREE_AXIS for axis in value.shape]
    return int(np.prod(sizes, dtype=np.int64)) * 4

"""Run a graph in ONNX Runtime so that it also returns inner tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from glesam_runtime.engine_libraries import import_onnxruntime
from glesam_runtime.errors import BackendError

_QUIET = 3
_FREE_AXIS = 4
"""Assumed size of a dynamic axis when memory is estimated."""


class WatchedGraph:
    """A graph that returns some of its inner tensors besides its outputs."""

    def __init__(self, path: Path, tensors: Sequence[str]) -> None:
        """Load a graph.

        Args:
            path: an .onnx file; weights in a file beside it are read from there.
            tensors: names of the inner tensors to return.

        Raises:
            BackendError: onnxruntime is missing or cannot load the graph.
        """
        try:
            ort = import_onnxruntime()
        except ImportError as error:
            raise BackendError(
                f"onnxruntime cannot be imported ({error}); pip install 'glesam-runtime[cpu]'"
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
        # Keeps weights mapped from their file, instead of copying them into another layout.
        options.add_session_config_entry("session.disable_prepacking", "1")
        # Spinning threads take CPU time from other processes.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(path.parent.resolve())
        )
        try:
            self._session: Any = ort.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the exceptions of ONNX Runtime have no common base
            raise BackendError(f"{path}: onnxruntime cannot load it: {error}") from error
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Run the graph; return its outputs and the watched tensors by name."""
        found = self._session.run(self._names, dict(inputs))
        results = dict(zip(self._names, found, strict=True))
        return results | {name: inputs[name] for name in self._echoed}


def group_tensors(graph: ir.Graph, tensors: Sequence[str], budget: int) -> Iterator[list[str]]:
    """Split tensors into groups of at most `budget` bytes per run.

    A tensor of more bytes is a group of its own.
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
    """Return the bytes of a float32 tensor; 0 if its shape is unknown."""
    if value.shape is None:
        return 0
    sizes = [axis if isinstance(axis, int) else _FREE_AXIS for axis in value.shape]
    return int(np.prod(sizes, dtype=np.int64)) * 4

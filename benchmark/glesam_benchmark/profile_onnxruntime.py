"""Profile a graph with ONNX Runtime's profiler.

`profile.opener_of` finds this module by its name, `profile_<profiler>`.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glesam_benchmark.profile import Arrays, Node, ProfiledGraph
from glesam_runtime.backends.onnxruntime import session_options
from glesam_runtime.bundle import Bundle
from glesam_runtime.engine_libraries import import_onnxruntime
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.manifest import StageName

_KERNEL = "_kernel_time"
"""Suffix of the events that measure a node's own computation."""


class OnnxRuntimeGraph:
    """A session that writes a profile."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, inputs: Arrays) -> None:
        """Run the graph once."""
        self._session.run(None, dict(inputs))

    def nodes(self) -> list[Node]:
        """Return the mean time of each node over all runs but the first."""
        events = json.loads(Path(self._session.end_profiling()).read_text(encoding="utf-8"))
        seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
                name = event["name"].removesuffix(_KERNEL)
                seconds[name, event["args"]["op_name"]].append(event["dur"] / 1e6)
        return [
            Node(name, kind, "", statistics.fmean(each[1:]))
            for (name, kind), each in seconds.items()
        ]


@contextmanager
def open_profiled_graph(
    bundle: Bundle, stage: StageName, options: EngineOptions, precision: str
) -> Iterator[ProfiledGraph]:
    """Load a graph with the backend's session options and the profiler; delete its file later."""
    ort = import_onnxruntime()

    with tempfile.TemporaryDirectory() as folder:
        how = session_options(options)
        how.enable_profiling = True
        how.profile_file_prefix = str(Path(folder) / "profile")
        path = str(bundle.graph_path(stage))
        yield OnnxRuntimeGraph(ort.InferenceSession(path, how, providers=["CPUExecutionProvider"]))

"""ONNX Runtime's profiler: what each node of an optimized graph took."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glesam_benchmark.counting import Arrays, Counted, Node
from glesam_runtime.backends.onnxruntime import session_options
from glesam_runtime.bundle import Bundle
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.manifest import StageName

_KERNEL = "_kernel_time"
"""Ends the name of the event that is a node's own computation."""


class CountingSession:
    """A session that writes a profile."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, inputs: Arrays) -> None:
        """Run it once."""
        self._session.run(None, dict(inputs))

    def nodes(self) -> list[Node]:
        """Means over all runs but the first."""
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
def counting_onnxruntime(
    bundle: Bundle, stage: StageName, options: EngineOptions, precision: str
) -> Iterator[Counted]:
    """Load a graph with the backend's session options, and the profiler; its file is removed."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        how = session_options(options)
        how.enable_profiling = True
        how.profile_file_prefix = str(Path(folder) / "profile")
        path = str(bundle.graph_path(stage))
        yield CountingSession(ort.InferenceSession(path, how, providers=["CPUExecutionProvider"]))

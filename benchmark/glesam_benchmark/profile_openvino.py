"""Profile a graph with OpenVINO's counters.

`profile.opener_of` finds this module by its name, `profile_<profiler>`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from glesam_benchmark.profile import Arrays, Node, ProfiledGraph
from glesam_runtime.backends.openvino import properties_of, without_casts
from glesam_runtime.bundle import Bundle
from glesam_runtime.engine_libraries import openvino_core
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.manifest import StageName


class OpenVinoGraph:
    """A compiled graph with PERF_COUNT on."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._averages: list[dict[tuple[str, str, str], float]] = []

    def run(self, inputs: Arrays) -> None:
        """Run the graph once."""
        self._request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        self._averages.append(
            {
                (info.node_name, info.node_type, info.exec_type): info.real_time.total_seconds()
                for info in self._request.get_profiling_info()
            }
        )

    def nodes(self) -> list[Node]:
        """Return the mean time of each node over all runs but the first.

        OpenVINO's counter is the mean of all runs so far, so the first run is subtracted
        from the last mean.
        """
        runs, first, last = len(self._averages), self._averages[0], self._averages[-1]
        later = {
            key: (runs * mean - first.get(key, 0.0)) / (runs - 1) for key, mean in last.items()
        }
        return [Node(*key, max(0.0, seconds)) for key, seconds in later.items()]


@contextmanager
def open_profiled_graph(
    bundle: Bundle, stage: StageName, options: EngineOptions, precision: str
) -> Iterator[ProfiledGraph]:
    """Compile a graph with the backend's properties and the counters on."""
    core = openvino_core()
    model = core.read_model(bundle.graph_path(stage))
    if bundle.manifest.stages[stage].precision in ("fp16", "bf16"):
        without_casts(model)  # the backend does this too
    properties = {**properties_of(options, precision), "PERF_COUNT": "YES"}
    yield OpenVinoGraph(core.compile_model(model, "CPU", properties).create_infer_request())

"""OpenVINO's counters: what each node of a compiled graph took."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from glesam_benchmark.counting import Arrays, Counted, Node
from glesam_runtime.backends.openvino import properties_of, without_casts
from glesam_runtime.bundle import Bundle
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.manifest import StageName


class CountingGraph:
    """A compiled graph with PERF_COUNT."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._averages: list[dict[tuple[str, str, str], float]] = []

    def run(self, inputs: Arrays) -> None:
        """Run it once."""
        self._request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        self._averages.append(
            {
                (info.node_name, info.node_type, info.exec_type): info.real_time.total_seconds()
                for info in self._request.get_profiling_info()
            }
        )

    def nodes(self) -> list[Node]:
        """Means over all runs but the first.

        A counter is the mean of all runs so far, so the first is taken out of the last.
        """
        runs, first, last = len(self._averages), self._averages[0], self._averages[-1]
        later = {
            key: (runs * mean - first.get(key, 0.0)) / (runs - 1) for key, mean in last.items()
        }
        return [Node(*key, max(0.0, seconds)) for key, seconds in later.items()]


@contextmanager
def counting_openvino(
    bundle: Bundle, stage: StageName, options: EngineOptions, precision: str
) -> Iterator[Counted]:
    """Compile a graph with the backend's properties, and counters."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(bundle.graph_path(stage))
    if bundle.manifest.stages[stage].precision in ("fp16", "bf16"):
        without_casts(model)  # as the backend does
    properties = {**properties_of(options, precision), "PERF_COUNT": "YES"}
    yield CountingGraph(core.compile_model(model, "CPU", properties).create_infer_request())

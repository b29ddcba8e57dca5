"""The Python side of the comparison: the same chain on the same engine, OpenVINO in float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov

from glesam_runtime.manifest import STAGES, StageName

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.bundle import Bundle


class OpenvinoEngine:
    """`glesam_runtime.backends.base.Engine` with the properties engine_openvino.cpp sets."""

    name = "openvino"
    device = "cpu"

    def __init__(self, bundle: Bundle, precision: str = "f32") -> None:
        """Compile all stages for the CPU.

        Args:
            bundle: an opened one.
            precision: OpenVINO's name, "f32" or "bf16".
        """
        properties = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        core = ov.Core()
        self._requests: dict[StageName, Any] = {
            stage: core.compile_model(
                str(bundle.graph_path(stage)), "CPU", properties
            ).create_infer_request()
            for stage in STAGES
        }

    def describe(self) -> dict[str, str]:
        """Engine, version, provider, device."""
        version = str(ov.__version__)
        return {"engine": self.name, "version": version, "provider": "CPU", "device": self.device}

    def run(self, stage: StageName, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run one graph."""
        request = self._requests[stage]
        for name, value in inputs.items():
            request.set_tensor(name, ov.Tensor(np.ascontiguousarray(value, np.float32), True))
        request.infer()
        outputs = request.model_outputs
        return {port.any_name: request.get_tensor(port).data.copy() for port in outputs}

    def to_host(self, value: Any) -> NDArray[np.float32]:
        """The values as a numpy array."""
        array: NDArray[np.float32] = value
        return array

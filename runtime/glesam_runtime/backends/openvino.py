"""OpenVINO on the CPU, in float32 wherever a graph does not say otherwise itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime.errors import BackendError
from glesam_runtime.manifest import Stage, StageName, TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from glesam_runtime.backends.base import EngineOptions, Value
    from glesam_runtime.bundle import Bundle

_OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
"""Left alone, OpenVINO computes a float32 graph in bfloat16 where the CPU has it, outside the
bundle's gates, and quantizes what flows into layers of which a graph quantizes the weights alone.
Layers that the graph quantizes stay quantized."""


@dataclass(frozen=True)
class OpenVinoEngine:
    """Compiled graphs of one bundle, with an inference request each."""

    requests: Mapping[StageName, Any]
    version: str
    name: str = "openvino"
    device: str = "cpu"

    def describe(self) -> dict[str, str]:
        """Engine, version, provider, device."""
        return {
            "engine": self.name,
            "version": self.version,
            "provider": "CPU",
            "device": self.device,
        }

    def run(self, stage: StageName, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run one graph.

        Raises:
            BackendError: the stage is not loaded, or OpenVINO failed.
        """
        if stage not in self.requests:
            raise BackendError(f"the {stage} was not loaded")
        request = self.requests[stage]
        given = {
            name: np.ascontiguousarray(self.to_host(value), dtype=np.float32)
            for name, value in inputs.items()
        }
        try:
            # The request writes its next results where these lie.
            results = request.infer(given, share_outputs=False)
        except Exception as error:  # OpenVINO's exceptions share no base of their own
            raise BackendError(f"openvino failed in the {stage}: {_brief(error)}") from error
        return {port.any_name: array for port, array in results.items()}

    def to_host(self, value: Value) -> NDArray[np.float32]:
        """The values as a numpy array."""
        if isinstance(value, np.ndarray):
            return value
        raise BackendError(f"a tensor of another engine: {type(value).__name__}")


def load(
    bundle: Bundle, device: str | None, stages: Sequence[StageName], options: EngineOptions
) -> OpenVinoEngine:
    """Compile graphs and check that they are what the manifest declares.

    Raises:
        BackendError: openvino is missing, another device than the CPU, an option it has not, or a
            graph is refused.
    """
    if options.cuda_graphs:
        raise BackendError("CUDA graphs are for compiled engines; leave out --cuda-graphs")
    try:
        import openvino as ov
    except ImportError as error:
        raise BackendError(
            f"openvino cannot be imported ({error}); pip install 'glesam-deploy[openvino]'"
        ) from error
    if device not in (None, "cpu"):
        raise BackendError(
            f"device {device!r}: the openvino backend runs on cpu; for a GPU use onnxruntime"
        )
    core = ov.Core()
    requests: dict[StageName, Any] = {}
    for stage in stages:
        path = bundle.graph_path(stage)
        try:
            compiled = core.compile_model(core.read_model(path), "CPU", _OPTIONS)
        except Exception as error:  # OpenVINO's exceptions share no base of their own
            raise BackendError(f"{path}: openvino cannot load it: {_brief(error)}") from error
        _check_interface(compiled, bundle.manifest.stages[stage], path)
        requests[stage] = compiled.create_infer_request()
    return OpenVinoEngine(requests, ov.__version__.partition("-")[0])


def _check_interface(compiled: Any, stage: Stage, path: Path) -> None:
    """Refuse a graph whose inputs or outputs are not those of the manifest."""
    for kind, ports, declared in (
        ("inputs", compiled.inputs, stage.inputs),
        ("outputs", compiled.outputs, stage.outputs),
    ):
        found = {port.any_name: port for port in ports}
        specs = {spec.name: spec for spec in declared}
        if found.keys() != specs.keys():
            raise BackendError(
                f"{path}: {kind} are {', '.join(found)}, the manifest says {', '.join(specs)}"
            )
        for name, port in found.items():
            if not _fits(port, specs[name]):
                raise BackendError(
                    f"{path}: {name} is {port.element_type} {port.partial_shape}, the manifest "
                    f"says float32 {list(specs[name].shape)}"
                )


def _fits(port: Any, spec: TensorSpec) -> bool:
    """Float, of the same rank, every axis that both fix of one size."""
    shape = port.partial_shape
    if port.element_type.get_type_name() != "f32" or len(shape) != len(spec.shape):
        return False
    return all(
        have.is_dynamic or isinstance(want, str) or have.get_length() == want
        for have, want in zip(shape, spec.shape, strict=True)
    )


def _brief(error: Exception) -> str:
    """The line of what OpenVINO says that holds its reason, without the places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    places = "Exception from", "Check '"
    reasons = [line for line in lines if not line.startswith(places) and line[-1] != ":"]
    return (reasons or lines or [type(error).__name__])[0]

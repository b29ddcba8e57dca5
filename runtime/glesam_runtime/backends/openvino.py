"""OpenVINO on the CPU, in the precision that the graphs were typed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime.backends.openvino_graph import without_casts
from glesam_runtime.errors import BackendError
from glesam_runtime.machine import adds_bytes_exactly
from glesam_runtime.manifest import Stage, StageName, TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from glesam_runtime.backends.base import EngineOptions, Value
    from glesam_runtime.bundle import Bundle

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
"""A precision by OpenVINO's name."""

_FIXED = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
"""Left alone, OpenVINO quantizes what flows into layers of which a graph quantizes the weights
alone. Layers that the graph quantizes stay quantized."""

_BYTES_AS_FLOATS = {"LP_TRANSFORMS_MODE": "NO"}
"""Quantized graphs are computed in float32 between their roundings."""


@dataclass(frozen=True)
class OpenVinoEngine:
    """Compiled graphs of one bundle, with an inference request each."""

    graphs: Mapping[StageName, Any]
    requests: Mapping[StageName, Any]
    version: str
    precision: str
    name: str = "openvino"
    device: str = "cpu"

    def describe(self) -> dict[str, str]:
        """Engine, version, provider, device, and what it computes in."""
        return {
            "engine": self.name,
            "version": self.version,
            "provider": "CPU",
            "device": self.device,
            "precision": self.precision,
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
            results = request.infer(given, share_inputs=True, share_outputs=False)
        except Exception as error:  # OpenVINO's exceptions share no base of their own
            raise BackendError(f"openvino failed in the {stage}: {_brief(error)}") from error
        return {port.any_name: array for port, array in results.items()}

    def to_host(self, value: Value) -> NDArray[np.float32]:
        """The values as a numpy array."""
        if isinstance(value, np.ndarray):
            return value
        raise BackendError(f"a tensor of another engine: {type(value).__name__}")

    def share(self) -> OpenVinoEngine:
        """The same graphs, with requests of their own."""
        return replace(self, requests=_requests(self.graphs))


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
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    precision = options.precision or _precision_of(bundle, stages, able)
    graphs: dict[StageName, Any] = {}
    for stage in stages:
        path = bundle.graph_path(stage)
        properties = properties_of(options, precision)
        if options.cache is not None:
            # OpenVINO knows what it kept by the graph's file, not by the weights beside it.
            kept = options.cache / f"openvino-{stage}-{bundle.stage_sha256(stage)[:16]}"
            properties["CACHE_DIR"] = str(kept)
        try:
            compiled = core.compile_model(_read(core, bundle, stage), "CPU", properties)
        except Exception as error:  # OpenVINO's exceptions share no base of their own
            raise BackendError(f"{path}: openvino cannot load it: {_brief(error)}") from error
        _check_precision(compiled, precision)
        _check_interface(compiled, bundle.manifest.stages[stage], path)
        graphs[stage] = compiled
    version = ov.__version__.partition("-")[0]
    return OpenVinoEngine(graphs, _requests(graphs), version, precision)


def properties_of(options: EngineOptions, precision: str) -> dict[str, Any]:
    """What OpenVINO is told of how to compile and run a graph; all of it but where to keep it.

    Raises:
        BackendError: a precision that it has not.
    """
    if precision not in _HINTS:
        raise BackendError(f"precision {precision!r}: openvino has {', '.join(_HINTS)}")
    properties: dict[str, Any] = {
        **_FIXED,
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY" if options.streams == 1 else "THROUGHPUT",
        "NUM_STREAMS": str(options.streams),
    }
    if not adds_bytes_exactly():
        # Else nano's int8 enhancer errs three times as much as its quantization (docs/adr/0013).
        properties |= _BYTES_AS_FLOATS
    if options.threads is not None:
        properties["INFERENCE_NUM_THREADS"] = str(options.threads)
    return properties


def _precision_of(bundle: Bundle, stages: Sequence[StageName], able: Sequence[str]) -> str:
    """What graphs are computed in unless the user says: bfloat16 if they have it and the CPU too.

    Left alone, OpenVINO would compute float32 graphs so as well, outside of the bundle's gates.
    Half precision is no faster than float32 on any CPU measured, and less exact.
    """
    typed = {bundle.manifest.stages[stage].precision for stage in stages}
    return "bf16" if "bf16" in typed and "BF16" in able else "fp32"


def _read(core: Any, bundle: Bundle, stage: StageName) -> Any:
    """A graph's model, or its file where there is nothing to change."""
    path = bundle.graph_path(stage)
    if bundle.manifest.stages[stage].precision not in ("fp16", "bf16"):
        return path
    model = core.read_model(path)
    without_casts(model)
    return model


def _check_precision(compiled: Any, precision: str) -> None:
    """Refuse what OpenVINO computes in float32 instead, without a word."""
    computed = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if computed != _HINTS[precision]:
        raise BackendError(
            f"precision {precision!r}: this CPU has none, openvino would compute in {computed}; "
            "leave out --precision"
        )


def _requests(graphs: Mapping[StageName, Any]) -> dict[StageName, Any]:
    return {stage: graph.create_infer_request() for stage, graph in graphs.items()}


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

"""ONNX Runtime, with explicit providers and no silent fallback from one to another."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime.backends.base import EngineOptions
from glesam_runtime.backends.onnxruntime_session import open_session
from glesam_runtime.errors import BackendError, InputError
from glesam_runtime.manifest import Stage, StageName, TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from glesam_runtime.backends.base import Value
    from glesam_runtime.bundle import Bundle

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True)
class OrtTensor:
    """An OrtValue, left on the device that computed it."""

    value: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""
        return tuple(self.value.shape())


@dataclass(frozen=True)
class OrtEngine:
    """Sessions of one bundle, all on one device."""

    sessions: Mapping[StageName, Any]
    provider: str
    device_type: str
    device_id: int
    version: str
    name: str = "onnxruntime"

    @property
    def device(self) -> str:
        """Where it really runs: "cpu" or "cuda:N"."""
        return "cpu" if self.device_type == "cpu" else f"{self.device_type}:{self.device_id}"

    def describe(self) -> dict[str, str]:
        """Engine, version, provider, device."""
        return {
            "engine": self.name,
            "version": self.version,
            "provider": self.provider,
            "device": self.device,
        }

    def run(self, stage: StageName, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run one graph; outputs stay on the device.

        Raises:
            BackendError: the stage is not loaded, or ONNX Runtime failed.
        """
        if stage not in self.sessions:
            raise BackendError(f"the {stage} was not loaded")
        session = self.sessions[stage]
        binding = session.io_binding()
        names = [output.name for output in session.get_outputs()]
        try:
            for name, value in inputs.items():
                binding.bind_ortvalue_input(name, self._on_device(value))
            for name in names:
                binding.bind_output(name, self.device_type, self.device_id)
            session.run_with_iobinding(binding)
            values = binding.get_outputs()
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise BackendError(f"onnxruntime failed in the {stage}: {_brief(error)}") from error
        return {name: OrtTensor(value) for name, value in zip(names, values, strict=True)}

    def to_host(self, value: Value) -> NDArray[np.float32]:
        """The values as a numpy array."""
        if isinstance(value, OrtTensor):
            array: NDArray[np.float32] = value.value.numpy()
            return array
        if isinstance(value, np.ndarray):
            return value
        raise BackendError(f"a tensor of another engine: {type(value).__name__}")

    def share(self) -> OrtEngine:
        """This one: a session runs in many threads, each run with a binding of its own."""
        return self

    def _on_device(self, value: Value) -> Any:
        import onnxruntime as ort

        if isinstance(value, OrtTensor):
            return value.value
        array = np.ascontiguousarray(self.to_host(value), dtype=np.float32)
        return ort.OrtValue.ortvalue_from_numpy(array, self.device_type, self.device_id)


def load(
    bundle: Bundle,
    device: str | None,
    stages: Sequence[StageName],
    options: EngineOptions,
) -> OrtEngine:
    """Load graphs and check that they run where asked and are what the manifest declares.

    Raises:
        BackendError: onnxruntime or the provider is missing, an option it has not, or a graph is
            refused.
    """
    if options.cuda_graphs:
        raise BackendError("CUDA graphs are for compiled engines; leave out --cuda-graphs")
    if options.precision is not None:
        raise BackendError(
            f"precision {options.precision!r}: onnxruntime computes in that of the graphs; use "
            "--backend openvino, or a bundle exported in it"
        )
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BackendError(
            f"onnxruntime cannot be imported ({error}); pip install 'glesam-deploy[cpu]' "
            "or 'glesam-deploy[gpu]'"
        ) from error
    provider, device_type, device_id = _provider_of(device)
    available = ort.get_available_providers()
    if provider not in available:
        raise BackendError(
            f"device {device!r} needs {provider}, this onnxruntime has {', '.join(available)}; "
            "pip uninstall onnxruntime, then pip install 'glesam-deploy[gpu]'"
        )
    providers: list[Any] = [(provider, {} if provider == _CPU else {"device_id": str(device_id)})]
    sessions: dict[StageName, Any] = {}
    for stage in stages:
        path = bundle.graph_path(stage)
        try:
            session = open_session(bundle, stage, options, providers)
        except InputError:
            raise  # the cache cannot be written, in its own words
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            precision = bundle.manifest.stages[stage].precision
            remedy = (
                ""
                if precision == "fp32"
                else f"; {provider} may lack {precision} kernels: use an fp32 bundle here"
            )
            raise BackendError(
                f"{path}: onnxruntime cannot load it: {_brief(error)}{remedy}"
            ) from error
        # A provider whose libraries do not load is dropped with no more than a log line.
        running = session.get_providers()
        if running[0] != provider:
            raise BackendError(
                f"{path}: asked for {provider}, onnxruntime runs it on {running[0]}; "
                "check the driver and the CUDA libraries"
            )
        _check_interface(session, bundle.manifest.stages[stage], path)
        sessions[stage] = session
    return OrtEngine(sessions, provider, device_type, device_id, ort.__version__)


def _provider_of(device: str | None) -> tuple[str, str, int]:
    """Provider, device type and number of a device name."""
    if device is None or device == "cpu":
        return _CPU, "cpu", 0
    match = re.fullmatch(r"cuda(?::(\d{1,3}))?", device)
    if match is None:
        raise BackendError(f"device {device!r} is not known; known are cpu, cuda, cuda:N")
    return _CUDA, "cuda", int(match[1] or 0)


def _check_interface(session: Any, stage: Stage, path: Path) -> None:
    """Refuse a graph whose inputs or outputs are not those of the manifest."""
    for kind, found, declared in (
        ("inputs", session.get_inputs(), stage.inputs),
        ("outputs", session.get_outputs(), stage.outputs),
    ):
        have, want = [node.name for node in found], [spec.name for spec in declared]
        if sorted(have) != sorted(want):
            raise BackendError(
                f"{path}: {kind} are {', '.join(have)}, the manifest says {', '.join(want)}"
            )
        specs = {spec.name: spec for spec in declared}
        for node in found:
            if not _fits(node, specs[node.name]):
                raise BackendError(
                    f"{path}: {node.name} is {node.type} {node.shape}, the manifest says float32 "
                    f"{list(specs[node.name].shape)}"
                )


def _fits(node: Any, spec: TensorSpec) -> bool:
    """Float, of the same rank, every fixed axis of one size.

    An output's axis that the manifest fixes may be one the graph leaves open: shape inference
    does not always see through it.
    """
    if node.type != "tensor(float)" or len(node.shape) != len(spec.shape):
        return False
    return all(
        have == want if isinstance(have, int) else True
        for have, want in zip(node.shape, spec.shape, strict=True)
    )


def _brief(error: Exception) -> str:
    """The first line of what ONNX Runtime says, without its own prefixes."""
    lines = str(error).splitlines() or [type(error).__name__]
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", lines[0])

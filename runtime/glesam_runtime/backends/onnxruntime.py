"""Run graphs with ONNX Runtime on CPU or CUDA, without a silent fallback from one to the other."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime.backends.base import FoundTensor, check_interface
from glesam_runtime.backends.graph_cache import kept_graph, opened_cache
from glesam_runtime.bundle import remedy_for_links
from glesam_runtime.engine_libraries import import_onnxruntime
from glesam_runtime.errors import BackendError, InputError
from glesam_runtime.machine import adds_bytes_exactly
from glesam_runtime.staging import staged_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.backends.base import Value
    from glesam_runtime.bundle import Bundle
    from glesam_runtime.engine_options import EngineOptions
    from glesam_runtime.manifest import StageName

OPTIONS = frozenset({"threads", "streams", "cache", "low_memory"})

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_SILENT = 4
"""Log severity: what matters reaches the user as an exception, in one line."""
_FLOAT32_ACTIVATIONS = ("session.qdq_matmulnbits_accuracy_level", "1")
"""Without it ONNX Runtime also quantizes the inputs of layers whose weights alone are quantized."""
_BYTES_AS_FLOATS = ("session.disable_quant_qdq", "1")
"""Computes quantized graphs in float32 between their roundings."""
_OPTIMIZED = "graph.onnx"
_EXTERNAL_FROM = 1024
"""Size in bytes from which a weight of a cached graph goes into the separate, mapped file."""


@dataclass(frozen=True)
class OrtTensor:
    """An OrtValue, on the device that computed it."""

    value: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the dimensions."""
        return tuple(self.value.shape())


@dataclass(frozen=True)
class OrtEngine:
    """The sessions of one bundle, all on one device."""

    sessions: Mapping[StageName, Any]
    provider: str
    device_type: str
    device_id: int
    version: str
    kept: str = ""
    """The hashes of what was loaded from a cache; "" if nothing was."""
    name: str = "onnxruntime"

    @property
    def device(self) -> str:
        """Return the device that the engine runs on: "cpu" or "cuda:N"."""
        return "cpu" if self.device_type == "cpu" else f"{self.device_type}:{self.device_id}"

    def describe(self) -> dict[str, str]:
        """Return engine, version, provider and device."""
        return {
            "engine": self.name,
            "version": self.version,
            "provider": self.provider,
            "device": self.device,
        }

    def run(self, stage: StageName, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run one graph; the outputs stay on the device.

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
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise BackendError(f"onnxruntime failed in the {stage}: {_brief(error)}") from error
        return {name: OrtTensor(value) for name, value in zip(names, values, strict=True)}

    def to_host(self, value: Value) -> NDArray[np.float32]:
        """Return a tensor's values as a float32 array on the host.

        Raises:
            BackendError: the tensor belongs to another engine.
        """
        if isinstance(value, OrtTensor):
            array: NDArray[np.float32] = value.value.numpy()
            return array
        if isinstance(value, np.ndarray):
            return value
        raise BackendError(f"a tensor of another engine: {type(value).__name__}")

    def share(self) -> OrtEngine:
        """Return this engine: a session accepts calls of many threads, each with its binding."""
        return self

    def _on_device(self, value: Value) -> Any:
        ort = import_onnxruntime()

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
    """Load graphs, and check that they run on the device and have the manifest's interface.

    Raises:
        BackendError: onnxruntime or the provider is missing, or it refuses a graph.
        InputError: the cache folder cannot be written, or other users may write to it.
    """
    try:
        ort = import_onnxruntime()
    except ImportError as error:
        raise BackendError(
            f"onnxruntime cannot be imported ({error}); pip install 'glesam-runtime[cpu]' "
            "or 'glesam-runtime[gpu]'"
        ) from error
    provider, device_type, device_id = _provider_of(device)
    available = ort.get_available_providers()
    if provider not in available:
        raise BackendError(
            f"device {device!r} needs {provider}, this onnxruntime has {', '.join(available)}; "
            "pip uninstall onnxruntime, then pip install 'glesam-runtime[gpu]'"
        )
    providers: list[Any] = [(provider, {} if provider == _CPU else {"device_id": str(device_id)})]
    sessions: dict[StageName, Any] = {}
    hashes = []
    for stage in stages:
        path = bundle.graph_path(stage)
        try:
            session, kept = _open_session(bundle, stage, options, providers)
        except InputError:
            raise  # the cache cannot be used, and the error says so
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            precision = bundle.manifest.stages[stage].precision
            remedy = remedy_for_links(bundle, stage) or (
                ""
                if precision == "fp32"
                else f"; {provider} may lack {precision} kernels: use an fp32 bundle here"
            )
            raise BackendError(
                f"{path}: onnxruntime cannot load it: {_brief(error)}{remedy}"
            ) from error
        # ONNX Runtime only logs a line when it drops a provider whose libraries do not load.
        running = session.get_providers()
        if running[0] != provider:
            raise BackendError(
                f"{path}: {provider} is needed, but onnxruntime runs it on {running[0]}; "
                "check the driver and the CUDA libraries"
            )
        spec = bundle.manifest.stages[stage]
        check_interface(path, "inputs", [_found(n) for n in session.get_inputs()], spec.inputs)
        check_interface(path, "outputs", [_found(n) for n in session.get_outputs()], spec.outputs)
        sessions[stage] = session
        hashes.append(kept)
    return OrtEngine(
        sessions, provider, device_type, device_id, ort.__version__, " ".join(filter(None, hashes))
    )


def sees_gpu() -> bool:
    """Return whether this ONNX Runtime was built for CUDA and an NVIDIA driver is installed."""
    if not Path("/dev/nvidiactl").exists() and sys.platform != "win32":
        return False
    ort = import_onnxruntime()

    return _CUDA in ort.get_available_providers()


def session_options(options: EngineOptions) -> Any:
    """Return the onnxruntime.SessionOptions for optimising and running a graph."""
    ort = import_onnxruntime()

    made = ort.SessionOptions()
    made.log_severity_level = _SILENT
    made.add_session_config_entry(*_FLOAT32_ACTIVATIONS)
    if not adds_bytes_exactly():
        # Exact, and no slower on such CPUs (docs/adr/0013).
        made.add_session_config_entry(*_BYTES_AS_FLOATS)
    # Planning memory ahead costs a third of the peak of ViT-B's encoder and saves no time
    # (docs/performance.md).
    made.enable_mem_pattern = False
    if options.threads is not None:
        made.intra_op_num_threads = options.threads
    return made


def _open_session(
    bundle: Bundle, stage: StageName, options: EngineOptions, providers: Sequence[Any]
) -> tuple[Any, str]:
    """Open a session on a graph, or on its optimised version in the cache.

    Returns:
        The session, and the hash of what was loaded from the cache ("" without a cache).
    """
    ort = import_onnxruntime()

    path, made = bundle.graph_path(stage), session_options(options)
    if options.cache is None:
        return ort.InferenceSession(str(path), made, providers=providers), ""
    # An optimised graph is valid for this CPU, provider and version only.
    made_of = {
        "graph": bundle.stage_sha256(stage),
        "engine": f"onnxruntime {ort.__version__}",
        "providers": providers,
        "options": (_FLOAT32_ACTIVATIONS, adds_bytes_exactly() or _BYTES_AS_FLOATS),
    }
    kept = kept_graph(options.cache, f"onnxruntime-{stage}", made_of)
    made.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL

    def load() -> tuple[Any, str]:
        graph = str(kept.folder / _OPTIMIZED)
        return ort.InferenceSession(graph, made, providers=providers), kept.sha256()

    with opened_cache(options.cache):
        kept.discard_unless_intact()
        if kept.folder.is_dir():
            try:
                return load()
            except Exception as error:  # noqa: BLE001 - its exceptions have no common base class
                kept.discard(f"onnxruntime cannot load it ({_brief(error)})")
        with staged_folder(kept.folder) as folder:
            _write_optimized(path, folder, options, providers)
            kept.write_record(folder)
        try:
            return load()
        except Exception as error:
            raise InputError(
                f"{kept.folder}: onnxruntime cannot load the graph that it has written "
                f"({_brief(error)}); leave out --cache"
            ) from error


def _write_optimized(
    path: Path, folder: Path, options: EngineOptions, providers: Sequence[Any]
) -> None:
    ort = import_onnxruntime()

    writing = session_options(options)
    writing.optimized_model_filepath = str(folder / _OPTIMIZED)
    prefix = "session.optimized_model_external_initializers"
    writing.add_session_config_entry(f"{prefix}_file_name", f"{_OPTIMIZED}.data")
    writing.add_session_config_entry(f"{prefix}_min_size_in_bytes", str(_EXTERNAL_FROM))
    ort.InferenceSession(str(path), writing, providers=providers)


def _provider_of(device: str | None) -> tuple[str, str, int]:
    """Return provider, device type and device number of a device name."""
    if device is None or device == "cpu":
        return _CPU, "cpu", 0
    match = re.fullmatch(r"cuda(?::(\d{1,3}))?", device)
    if match is None:
        raise BackendError(f"device {device!r} is not known; known are cpu, cuda, cuda:N")
    return _CUDA, "cuda", int(match[1] or 0)


def _found(node: Any) -> FoundTensor:
    """Describe an input or output of a session; ONNX Runtime names its free axes."""
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return FoundTensor(node.name, node.type, node.type == "tensor(float)", shape)


def _brief(error: Exception) -> str:
    """Return the first line of ONNX Runtime's message, without its own prefixes."""
    lines = str(error).splitlines() or [type(error).__name__]
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", lines[0])

"""Run TensorRT engines one after another without copying tensors to the host.

Memory is allocated once, when engines are loaded, at the largest sizes of their profiles. A stage
returns its own output buffer and the next stage reads it there, so a result is valid until the same
stage runs again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime.backends.cuda import Device, Memory
from glesam_runtime.backends.tensorrt_api import Api, logger_of
from glesam_runtime.errors import BackendError
from glesam_runtime.manifest import Stage, StageName, TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.backends.base import Value
    from glesam_runtime.engine_options import EngineOptions

_GRAPHED: tuple[StageName, ...] = ("encoder", "enhancer")
"""Stages of fixed shapes, where one CUDA graph replaces the launch of hundreds of kernels."""


@dataclass(frozen=True)
class CudaTensor:
    """The output of one run of a stage, on the GPU."""

    memory: Memory
    shape: tuple[int, ...]
    stage: StageName
    run: int

    @property
    def elements(self) -> int:
        """Return the number of values."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass
class _Buffers:
    """A tensor's memory on the GPU, and pinned host memory for copies from or to the host."""

    device: Memory
    host: Memory
    in_flight: bool = False
    """True while a copy from `host` may still be queued; `host` must not be written to then."""


@dataclass
class _Loaded:
    """An engine that is ready to run."""

    stage: StageName
    spec: Stage
    context: Any
    buffers: dict[str, _Buffers]
    runs: int = 0
    graphs: dict[tuple[int, ...], Callable[[], None]] = field(default_factory=dict)
    """Functions that replay a CUDA graph, by the addresses of the inputs that it reads."""
    engine: Any = None
    """Kept here because it has to outlive its context."""


class TrtEngine:
    """The engines of one bundle, on one GPU and one stream."""

    name = "tensorrt"

    def __init__(self, api: Api, device: Device, options: EngineOptions) -> None:
        self._api, self._device, self._options = api, device, options
        self._loaded: dict[StageName, _Loaded] = {}

    @property
    def device(self) -> str:
        """Return the GPU that the engines run on, such as "cuda:0"."""
        return f"cuda:{self._device.gpu.index}"

    def describe(self) -> dict[str, str]:
        """Return the library, its version, the GPU's name and the device."""
        return {
            "engine": self._api.family.name,
            "version": self._api.version,
            "provider": self._device.gpu.name,
            "device": self.device,
        }

    def add(self, stage: StageName, spec: Stage, engine: Any) -> None:
        """Create the context of a deserialized engine and allocate its memory.

        Raises:
            BackendError: the GPU has too little memory.
        """
        config = self._api.runtime_config(engine, self._options.cuda_graphs and stage in _GRAPHED)
        given = () if config is None else (config,)
        context = engine.create_execution_context(*given)
        if context is None:
            raise BackendError(
                f"{spec.graph.file}: no execution context ({logger_of(self._api).take()}); "
                "free memory on the GPU"
            )
        buffers = {}
        for tensor in (*spec.inputs, *spec.outputs):
            largest = int(np.prod(_largest(tensor, spec), dtype=np.int64))
            on_host = self._device.allocate(largest, on_host=True)
            buffers[tensor.name] = _Buffers(self._device.allocate(largest), on_host)
        self._loaded[stage] = _Loaded(stage, spec, context, buffers, engine=engine)

    def share(self) -> TrtEngine:
        """Refuse, because the buffers and the stream serve one run at a time.

        Raises:
            BackendError: always.
        """
        raise BackendError("a bundle of engines runs one stream; leave out --streams")

    def run(self, stage: StageName, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Queue one engine; its outputs stay on the GPU and are valid until the stage runs again.

        Raises:
            BackendError: the stage is not loaded, a shape is outside its profile, or TensorRT
                failed.
        """
        loaded = self._loaded.get(stage)
        if loaded is None:
            raise BackendError(f"the {stage} was not loaded")
        self._device.claim()
        sizes = _axes(loaded.spec, {name: tuple(v.shape) for name, v in inputs.items()})
        addresses = []
        for tensor in loaded.spec.inputs:
            memory = self._on_device(inputs[tensor.name], loaded.buffers[tensor.name])
            addresses.append(memory.address)
            _accept(loaded.context.set_tensor_address(tensor.name, memory.address), tensor.name)
            shape = _sized(tensor, sizes)
            _accept(loaded.context.set_input_shape(tensor.name, shape), tensor.name)
        for tensor in loaded.spec.outputs:
            address = loaded.buffers[tensor.name].device.address
            _accept(loaded.context.set_tensor_address(tensor.name, address), tensor.name)
        self._queue(loaded, tuple(addresses))
        loaded.runs += 1
        return {
            tensor.name: CudaTensor(
                loaded.buffers[tensor.name].device, _sized(tensor, sizes), stage, loaded.runs
            )
            for tensor in loaded.spec.outputs
        }

    def to_host(self, value: Value) -> NDArray[np.float32]:
        """Wait for a tensor's values and return a float32 copy on the host.

        Raises:
            BackendError: the tensor belongs to another engine, or its stage has run again since.
        """
        if isinstance(value, np.ndarray):
            return value
        tensor = self._current(value)
        buffers = self._buffers_of(tensor)
        self._device.download(tensor.memory, buffers.host, tensor.elements)
        self._wait()
        return buffers.host.as_array(tensor.shape).copy()

    def _queue(self, loaded: _Loaded, addresses: tuple[int, ...]) -> None:
        """Queue a run, as a CUDA graph if one is wanted and the library makes none itself."""
        graphed = self._options.cuda_graphs and loaded.stage in _GRAPHED
        if not graphed or hasattr(self._api.trt, "CudaGraphStrategy"):
            self._execute(loaded)
        elif addresses in loaded.graphs:
            loaded.graphs[addresses]()
        else:
            self._execute(loaded)  # work that TensorRT does only once must not be captured
            self._wait()
            loaded.graphs[addresses] = self._device.capture(lambda: self._execute(loaded))

    def _execute(self, loaded: _Loaded) -> None:
        if not loaded.context.execute_async_v3(self._device.stream):
            raise BackendError(
                f"{self._api.family.name} failed in the {loaded.stage}: "
                f"{logger_of(self._api).take()}"
            )

    def _on_device(self, value: Value, buffers: _Buffers) -> Memory:
        """Return the memory of a value on the GPU; a value on the host is copied there."""
        if not isinstance(value, np.ndarray):
            return self._current(value).memory
        if buffers.in_flight:
            self._wait()
        buffers.host.as_array(value.shape)[...] = value
        self._device.upload(buffers.host, buffers.device, value.size)
        buffers.in_flight = True
        return buffers.device

    def _current(self, value: Value) -> CudaTensor:
        """Return the tensor if its stage has not run again since; else raise."""
        if not isinstance(value, CudaTensor):
            raise BackendError(f"a tensor of another engine: {type(value).__name__}")
        loaded = self._loaded.get(value.stage)
        if loaded is None or value.memory not in (b.device for b in loaded.buffers.values()):
            raise BackendError("a tensor of another engine: CudaTensor")
        if value.run != loaded.runs:
            raise BackendError(
                f"the {value.stage} has run again since this tensor was computed; "
                "call to_host before that"
            )
        return value

    def _buffers_of(self, tensor: CudaTensor) -> _Buffers:
        buffers = self._loaded[tensor.stage].buffers.values()
        return next(each for each in buffers if each.device is tensor.memory)

    def _wait(self) -> None:
        """Wait until the stream is empty; every pinned buffer may be written to after that."""
        self._device.wait()
        for loaded in self._loaded.values():
            for buffers in loaded.buffers.values():
                buffers.in_flight = False


def _axes(spec: Stage, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the sizes of the free axes, read from the inputs.

    Raises:
        BackendError: a size is outside the profile, or a shape is not the manifest's.
    """
    sizes: dict[str, int] = {}
    for tensor in spec.inputs:
        shape = shapes[tensor.name]
        named = {a: n for a, n in zip(tensor.shape, shape, strict=False) if isinstance(a, str)}
        for axis, size in named.items():
            allowed = (spec.profile or {})[axis]
            if not allowed.min <= size <= allowed.max:
                raise BackendError(
                    f"{spec.graph.file}: {axis} is {size}, but the engine was built for "
                    f"{allowed.min} to {allowed.max}; "
                    + (
                        f"give at most {allowed.max} at a time"
                        if size > allowed.max
                        else f"give at least {allowed.min}"
                    )
                    + f", or compile with --profile {axis}=MIN:OPT:MAX"
                )
        sizes = {**named, **sizes}
        if shape != _sized(tensor, sizes):
            raise BackendError(
                f"{tensor.name}: shape {list(shape)}, but {list(tensor.shape)} is needed"
            )
    return sizes


def _sized(tensor: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return a tensor's shape with the free axes replaced by their sizes."""
    return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in tensor.shape)


def _largest(tensor: TensorSpec, spec: Stage) -> tuple[int, ...]:
    """Return a tensor's largest shape in the profile."""
    return _sized(tensor, {axis: sizes.max for axis, sizes in (spec.profile or {}).items()})


def _accept(accepted: bool, name: str) -> None:
    """Raise if TensorRT refused a tensor, which it reports by a return value."""
    if not accepted:
        raise BackendError(f"TensorRT refuses the shape or address of {name}")

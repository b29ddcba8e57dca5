"""Fake CUDA and TensorRT in host memory for tests without a GPU; engines are ONNX files.

What a stream is given is done when it is waited for and not before, as on a GPU, so that a buffer
written to or read too early shows in the numbers.
"""

from __future__ import annotations

import ctypes
import enum
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from msgspec.structs import replace

from glesam_runtime.backends.tensorrt_api import system_name
from glesam_runtime.bundle import file_ref, open_bundle
from glesam_runtime.manifest import MANIFEST_FILE, STAGES
from glesam_runtime.manifest_file import dump
from glesam_runtime.target import AxisRange, EngineBuild

VERSION = "1.7.1.116"
BUILD = EngineBuild(
    version=VERSION,
    system=system_name(),
    compute_capabilities=("8.9", "12.0"),
    source="0" * 64,
    precision_seen_in="network",
)
PROFILE = {"B": AxisRange(1, 1, 4), "P": AxisRange(1, 2, 5)}


def engine_bundle(
    source: Path, folder: Path, build: EngineBuild = BUILD, engine: str = "tensorrt-rtx"
) -> Path:
    """Turn an ONNX bundle into a compiled one, whose engines are ONNX files."""
    shutil.copytree(source, folder)
    manifest = open_bundle(source).manifest
    stages = {}
    for stage in STAGES:
        spec = manifest.stages[stage]
        path = folder / f"{stage}.engine"
        shutil.copyfile(folder / spec.graph.file, path)
        if not build.stripped:
            (folder / spec.graph.file).unlink()
        stages[stage] = replace(
            spec,
            graph=file_ref(path),
            profile=PROFILE if stage == "decoder" else None,
            weights=spec.graph if build.stripped else None,
        )
    target = replace(manifest.target, engine=engine, build=build)
    (folder / MANIFEST_FILE).write_bytes(dump(replace(manifest, stages=stages, target=target)))
    return folder


def install(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda, version: str = VERSION) -> None:
    bindings: Any = ModuleType("cuda.bindings")
    bindings.runtime = cuda
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_tensorrt(cuda, version))
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(cuda, "11.4.0.1", rtx=False))


class Status(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorNoDevice = 100


class FakeCuda:
    """The part of cuda.bindings.runtime that the backend uses."""

    class cudaMemcpyKind(enum.IntEnum):
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    class cudaStreamCaptureMode(enum.IntEnum):
        cudaStreamCaptureModeThreadLocal = 1

    def __init__(self, capability: str = "8.9", count: int = 1) -> None:
        self.capability, self.count = capability, count
        self.memory: dict[int, tuple[str, Any]] = {}
        self.queue: list[Callable[[], None]] = []
        self.captured: list[Callable[[], None]] | None = None
        self.log: list[str] = []

    def cudaGetDeviceCount(self) -> tuple[Any, int]:
        return (Status.cudaSuccess if self.count else Status.cudaErrorNoDevice), self.count

    def cudaGetErrorString(self, status: Any) -> tuple[Any, bytes]:
        return Status.cudaSuccess, str(status.name).encode()

    def cudaSetDevice(self, number: int) -> tuple[Any]:
        return (Status.cudaSuccess,)

    def cudaGetDeviceProperties(self, number: int) -> tuple[Any, Any]:
        major, minor = self.capability.split(".")
        return Status.cudaSuccess, SimpleNamespace(name=b"Fake GPU", major=major, minor=minor)

    def cudaStreamCreate(self) -> tuple[Any, int]:
        return Status.cudaSuccess, 7

    def cudaStreamDestroy(self, stream: int) -> tuple[Any]:
        self.log.append("destroy")
        return (Status.cudaSuccess,)

    def cudaMalloc(self, size: int) -> tuple[Any, int]:
        return self._allocate(size, "device")

    def cudaMallocHost(self, size: int) -> tuple[Any, int]:
        return self._allocate(size, "host")

    def cudaFree(self, address: int) -> tuple[Any]:
        assert self.memory.pop(address)[0] == "device"
        return (Status.cudaSuccess,)

    def cudaFreeHost(self, address: int) -> tuple[Any]:
        assert self.memory.pop(address)[0] == "host"
        return (Status.cudaSuccess,)

    def cudaMemcpyAsync(
        self, target: int, source: int, size: int, kind: Any, stream: int
    ) -> tuple[Any]:
        upload = kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice
        kinds = ("host", "device") if upload else ("device", "host")
        for address, wanted in ((source, kinds[0]), (target, kinds[1])):
            found, block = self.memory[address]
            assert found == wanted
            assert size <= len(block)
        self.log.append("upload" if upload else "download")
        self.enqueue(lambda: ctypes.memmove(target, source, size) and None)
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any]:
        while self.queue:
            self.queue.pop(0)()
        return (Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: Any) -> tuple[Any]:
        self.captured = []
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, Any]:
        graph, self.captured = self.captured, None
        return Status.cudaSuccess, graph

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, Any]:
        return Status.cudaSuccess, list(graph)

    def cudaGraphDestroy(self, graph: Any) -> tuple[Any]:
        return (Status.cudaSuccess,)

    def cudaGraphLaunch(self, executable: Any, stream: int) -> tuple[Any]:
        self.log.append("graph")
        self.queue.extend(executable)
        return (Status.cudaSuccess,)

    def enqueue(self, work: Callable[[], None]) -> None:
        (self.queue if self.captured is None else self.captured).append(work)

    def array(self, address: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return device memory as an array that shares it."""
        kind, block = self.memory[address]
        assert kind == "device"
        return np.frombuffer(block, np.float32, int(np.prod(shape))).reshape(shape)

    def _allocate(self, size: int, kind: str) -> tuple[Any, int]:
        block = (ctypes.c_char * size).from_buffer(bytearray(b"\xff" * size))  # NaN, if read
        address = ctypes.addressof(block)
        self.memory[address] = (kind, block)
        return Status.cudaSuccess, address


class FakeEngine:
    """A deserialized engine: an ONNX session."""

    def __init__(self, cuda: FakeCuda, graph: bytes) -> None:
        self.cuda = cuda
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.tensors = {
            t.name: t for t in (*self.session.get_inputs(), *self.session.get_outputs())
        }

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(a if isinstance(a, int) else -1 for a in self.tensors[name].shape)

    def get_tensor_dtype(self, name: str) -> str:
        return "float" if self.tensors[name].type == "tensor(float)" else "other"

    def create_execution_context(self, config: Any = None) -> FakeContext:
        return FakeContext(self)

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(cuda_graph_strategy=None)


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.tensors

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        return name in self.engine.tensors

    def execute_async_v3(self, stream: int) -> bool:
        cuda, session = self.engine.cuda, self.engine.session
        addresses, shapes = dict(self.addresses), dict(self.shapes)
        cuda.log.append("execute")

        def work() -> None:
            given = {t.name: t.name for t in session.get_inputs()}
            feeds = {n: cuda.array(addresses[n], shapes[n]).copy() for n in given}
            results = session.run(None, feeds)
            for output, result in zip(session.get_outputs(), results, strict=True):
                cuda.array(addresses[output.name], result.shape)[...] = result

        cuda.enqueue(work)
        return True


def fake_tensorrt(cuda: FakeCuda, version: str = VERSION, *, rtx: bool = True) -> Any:
    """Return a fake module tensorrt_rtx or tensorrt."""

    class ILogger:
        ERROR, INTERNAL_ERROR, WARNING = 1, 0, 2

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, data: bytes) -> FakeEngine | None:
            try:
                return FakeEngine(cuda, data)
            except Exception as error:  # noqa: BLE001 - as the library: a log line and None
                self.logger.log(ILogger.ERROR, f"deserialization failed: {type(error).__name__}")
                return None

    class Refitter:
        def __init__(self, engine: FakeEngine, logger: Any) -> None:
            self.engine = engine

        def refit_cuda_engine(self) -> bool:
            return True

    class OnnxParserRefitter:
        def __init__(self, refitter: Refitter, logger: Any) -> None:
            self.refitter, self.logger = refitter, logger

        def refit_from_file(self, path: str) -> bool:
            try:
                fresh = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            except Exception:  # noqa: BLE001 - as the library
                self.logger.log(ILogger.ERROR, "refit failed")
                return False
            self.refitter.engine.session = fresh
            return True

    module: Any = ModuleType("fake_tensorrt")
    vars(module).update(
        __version__=version,
        ILogger=ILogger,
        Runtime=Runtime,
        Refitter=Refitter,
        OnnxParserRefitter=OnnxParserRefitter,
        DataType=SimpleNamespace(FLOAT="float"),
    )
    if rtx:
        names = ("NONE", "SM75", "SM89", "SM120", "CURRENT")
        module.ComputeCapability = SimpleNamespace(__members__=dict.fromkeys(names))
        module.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    return module

"""Wrap the part of CUDA that a backend needs: a stream, memory on GPU and host, copies, graphs.

Every call goes through cuda-python, and an error code becomes a `BackendError`. A `Memory` object
owns its memory and frees it when the object is deleted.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glesam_runtime.errors import BackendError
from glesam_runtime.termination import interruptible_import

_FLOAT = 4
"""Size of a float32, in bytes."""


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name ("NVIDIA L4"), compute capability ("8.9") and number."""

    name: str
    capability: str
    index: int = 0


class Device:
    """One GPU and one stream on it; all work is queued on the stream in the order of the calls."""

    def __init__(self, number: int = 0) -> None:
        """Open a GPU and create a stream on it.

        Raises:
            BackendError: cuda-python, the driver or the GPU is missing.
        """
        try:
            with interruptible_import():
                from cuda.bindings import runtime
        except ImportError as error:
            raise BackendError(
                f"cuda-python cannot be imported ({error}); pip install 'glesam-runtime[rtx]' "
                "or 'glesam-runtime[trt]'"
            ) from error
        self._cuda: Any = runtime
        status, count = runtime.cudaGetDeviceCount()
        if int(status) != 0 or not count:
            raise BackendError(f"no NVIDIA GPU can be used here ({_words(runtime, status)})")
        if number >= count:
            known = ", ".join(f"cuda:{index}" for index in range(count))
            raise BackendError(f"device 'cuda:{number}' does not exist; available are {known}")
        self._number = number
        self.claim()
        properties = self._call("cudaGetDeviceProperties", number)
        name = properties.name
        self.gpu = Gpu(
            name.decode() if isinstance(name, bytes) else str(name),
            f"{properties.major}.{properties.minor}",
            number,
        )
        self.stream = int(self._call("cudaStreamCreate"))

    def __del__(self) -> None:
        if hasattr(self, "stream") and not sys.is_finalizing():
            self._call("cudaStreamDestroy", self.stream)

    def claim(self) -> None:
        """Make this the current GPU of the calling thread; CUDA keeps one for each thread."""
        self._call("cudaSetDevice", self._number)

    def allocate(self, elements: int, *, on_host: bool = False) -> Memory:
        """Allocate float32 memory on the GPU, or pinned memory on the host, so copies overlap."""
        size = max(1, elements) * _FLOAT
        address = int(self._call("cudaMallocHost" if on_host else "cudaMalloc", size))
        free = "cudaFreeHost" if on_host else "cudaFree"
        return Memory(address, elements, lambda: self._call(free, address))

    def upload(self, source: Memory, target: Memory, elements: int) -> None:
        """Queue a copy from pinned memory to the GPU."""
        self._copy(source, target, elements, self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def download(self, source: Memory, target: Memory, elements: int) -> None:
        """Queue a copy from the GPU to pinned memory."""
        self._copy(source, target, elements, self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def wait(self) -> None:
        """Wait until all queued work is done."""
        self._call("cudaStreamSynchronize", self.stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` queues as a CUDA graph; return a function that queues the graph."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self.stream, mode)
        try:
            work()
        finally:
            graph = self._call("cudaStreamEndCapture", self.stream)
        executable = self._call("cudaGraphInstantiate", graph, 0)
        self._call("cudaGraphDestroy", graph)
        return lambda: self._call("cudaGraphLaunch", executable, self.stream)

    def _copy(self, source: Memory, target: Memory, elements: int, kind: Any) -> None:
        size = elements * _FLOAT
        self._call("cudaMemcpyAsync", target.address, source.address, size, kind, self.stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the CUDA runtime and return its result, None if it has none.

        Raises:
            BackendError: CUDA reports a failure.
        """
        status, *results = getattr(self._cuda, name)(*arguments)
        if int(status) != 0:
            raise BackendError(f"CUDA failed in {name}: {_words(self._cuda, status)}")
        return results[0] if results else None


class Memory:
    """Float32 memory at a fixed address, freed when nothing refers to the object any more."""

    def __init__(self, address: int, elements: int, free: Callable[[], object]) -> None:
        self.address, self.elements = address, elements
        self._free = free

    def as_array(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return pinned host memory as a float32 array that shares the memory."""
        buffer = (ctypes.c_float * self.elements).from_address(self.address)
        count = int(np.prod(shape, dtype=np.int64))
        array: NDArray[np.float32] = np.ctypeslib.as_array(buffer)[:count].reshape(shape)
        return array

    def __del__(self) -> None:
        if not sys.is_finalizing():  # the end of the process frees it
            self._free()


def device_number(device: str | None) -> int:
    """Return N of "cuda:N"; None and "cuda" are the first GPU.

    Raises:
        BackendError: the name is not one of these.
    """
    match = re.fullmatch(r"cuda(?::(\d{1,3}))?", device or "cuda")
    if match is None:
        raise BackendError(f"device {device!r}: compiled engines run on cuda or cuda:N")
    return int(match[1] or 0)


def _words(runtime: Any, status: Any) -> str:
    """Return CUDA's message for a status."""
    found = runtime.cudaGetErrorString(status)[1]
    return found.decode() if isinstance(found, bytes) else str(found)

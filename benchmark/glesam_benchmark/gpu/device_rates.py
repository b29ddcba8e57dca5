"""Measure how fast a device multiplies matrices and copies, the ceilings of every other figure."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable

import torch

from glesam_benchmark.gpu.findings import Finding, Rates, Remark
from glesam_benchmark.gpu.plan import Device

_COPY_BYTES = {"cuda": 4 << 30, "cpu": 16 << 20}
_RUNS = 10
_DTYPES = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "tf32": torch.float32,
    "fp32": torch.float32,
}
_ENGINES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}


@torch.no_grad()
def measure(side: int, device: Device, report: Callable[[Finding], None]) -> None:
    """Report the rates of a device, and which of TensorRT's libraries can be used on it."""
    matrix = {name: _matrix_rate(name, side, device) for name in _DTYPES}
    source = torch.randn(_COPY_BYTES[device] // 4, device=device)
    target = torch.empty_like(source)
    seconds = fastest(lambda: target.copy_(source), device)
    report(Rates(matrix, 2 * source.nbytes / seconds, side))
    for module, title in _ENGINES.items():
        report(Remark(title, _try_engine(module)))


def fastest(call: Callable[[], object], device: Device) -> float:
    """Return the seconds of the fastest of some calls."""
    call()
    seconds = []
    for _ in range(_RUNS):
        wait(device)
        start = time.perf_counter()
        call()
        wait(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def wait(device: Device) -> None:
    """Wait until the device has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def memory_in_use(device: Device) -> int | None:
    """Return the bytes that are in use on the GPU, by all processes; None on a CPU."""
    if device == "cpu":
        return None
    free, total = torch.cuda.mem_get_info()
    return total - free


def _matrix_rate(name: str, side: int, device: Device) -> float:
    """Return operations per second on random data, which are slower than on zeros."""
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    a, b = (torch.randn(side, side, device=device).to(_DTYPES[name]) for _ in range(2))
    out = torch.empty_like(a)
    rate = 2 * side**3 / fastest(lambda: torch.matmul(a, b, out=out), device)
    torch.backends.cuda.matmul.allow_tf32 = False
    return rate


def _try_engine(module: str) -> str:
    """Return whether a TensorRT library can be imported and can build for this device."""
    try:
        library = importlib.import_module(module)
        library.Builder(library.Logger(library.Logger.ERROR))
    # The bindings import, load libraries and ask the driver: each fails with another class.
    except Exception as error:  # noqa: BLE001
        text = str(error).splitlines() or [""]
        return f"cannot be used: {type(error).__name__}: {text[0][:200]}"
    return f"version {library.__version__} loads"

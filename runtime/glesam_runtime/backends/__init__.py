"""List the inference backends.

To add a backend, add a module with a set `OPTIONS` and a function `load` to this package and an
entry to `BACKENDS`. Nothing heavy is imported here, because command lines read the table for their
--help; a backend's module is imported when it is used (`loading`).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """Seconds that a small bundle costs, measured with nano on two cores (docs/performance.md).

    Attributes:
        start: from the start of the program until the graphs are loaded.
        image: to encode and enhance an image.
        prompt: to decode a prompt.
    """

    start: float
    image: float
    prompt: float


@dataclass(frozen=True)
class Backend:
    """An inference backend.

    Attributes:
        name: name on the command line and of the module in this package.
        requires: Python modules of which at least one must be installed.
        compiled: whether it runs bundles of compiled engines instead of ONNX bundles.
        devices: kinds of device it runs on, "cpu" or "cuda".
        rank: place in the order that "auto" tries; the fastest backend comes first.
        costs: what orders the backends for small bundles, together with the expected work; None for
            a backend of compiled bundles, which "auto" does not order.
        profiler: N where glesam_benchmark.profile_N reads its profile of nodes, else None.
    """

    name: str
    requires: tuple[str, ...]
    compiled: bool
    devices: tuple[str, ...]
    rank: int
    costs: Costs | None = None
    profiler: str | None = None

    @property
    def is_installed(self) -> bool:
        """Return whether a Python module that the backend requires is installed."""
        return any(importlib.util.find_spec(module) for module in self.requires)


_TABLE = (
    Backend(
        "onnxruntime",
        requires=("onnxruntime",),
        compiled=False,
        devices=("cpu", "cuda"),
        rank=2,
        costs=Costs(start=0.40, image=0.050, prompt=0.024),
        profiler="onnxruntime",
    ),
    Backend(
        "openvino",
        requires=("openvino",),
        compiled=False,
        devices=("cpu",),
        rank=1,
        costs=Costs(start=1.27, image=0.018, prompt=0.012),
        profiler="openvino",
    ),
    Backend(
        "tensorrt",
        requires=("tensorrt", "tensorrt_rtx"),
        compiled=True,
        devices=("cuda",),
        rank=1,
    ),
)

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in _TABLE}
"""Every backend by its name."""

ENGINE_BACKEND = next(backend.name for backend in _TABLE if backend.compiled)
"""The backend for bundles of compiled engines; it imports the library that the manifest names."""


def installed() -> list[str]:
    """Return the names of the installed backends for ONNX bundles."""
    return [name for name, each in BACKENDS.items() if not each.compiled and each.is_installed]

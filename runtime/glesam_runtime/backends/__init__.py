"""List the inference backends and load one of them.

To add a backend, add a module with a set `OPTIONS` and a function `load` to this package and an
entry to `BACKENDS`. The module is imported only when the backend is used.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from glesam_runtime.errors import BackendError

# Command lines read the table for their --help: nothing heavy is imported here.
if TYPE_CHECKING:
    from glesam_runtime.backends.base import Engine
    from glesam_runtime.bundle import Bundle
    from glesam_runtime.engine_options import EngineOptions
    from glesam_runtime.manifest import StageName


@dataclass(frozen=True)
class Backend:
    """An inference backend.

    Attributes:
        name: name on the command line and of the module in this package.
        requires: Python modules of which at least one must be installed.
        compiled: whether it runs bundles of compiled engines instead of ONNX bundles.
        devices: kinds of device it runs on, "cpu" or "cuda".
        rank: place in the order that "auto" tries; the fastest backend comes first.
        small_rank: the same for small bundles, where the backend that loads fastest comes first.
        profiler: N where glesam_benchmark.profile_N reads its profile of nodes, else None.
    """

    name: str
    requires: tuple[str, ...]
    compiled: bool
    devices: tuple[str, ...]
    rank: int
    small_rank: int
    profiler: str | None = None

    @property
    def is_installed(self) -> bool:
        """Return whether a Python module that the backend requires is installed."""
        return any(importlib.util.find_spec(module) for module in self.requires)

    @property
    def module(self) -> BackendModule:
        """Return the module that implements the backend, imported on first use."""
        return cast(
            "BackendModule", importlib.import_module(f"glesam_runtime.backends.{self.name}")
        )


_TABLE = (
    Backend(
        "onnxruntime",
        requires=("onnxruntime",),
        compiled=False,
        devices=("cpu", "cuda"),
        rank=2,
        small_rank=1,
        profiler="onnxruntime",
    ),
    Backend(
        "openvino",
        requires=("openvino",),
        compiled=False,
        devices=("cpu",),
        rank=1,
        small_rank=2,
        profiler="openvino",
    ),
    Backend(
        "tensorrt",
        requires=("tensorrt", "tensorrt_rtx"),
        compiled=True,
        devices=("cuda",),
        rank=1,
        small_rank=1,
    ),
)

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in _TABLE}
"""Every backend by its name."""

ENGINE_BACKEND = next(backend.name for backend in _TABLE if backend.compiled)
"""The backend for bundles of compiled engines; it imports the library that the manifest names."""


class BackendModule(Protocol):
    """The interface of a backend's module. One that runs on "cuda" also offers `sees_gpu`."""

    OPTIONS: frozenset[str]
    """Names of the `EngineOptions` that it supports."""

    def load(
        self,
        bundle: Bundle,
        device: str | None,
        stages: Sequence[StageName],
        options: EngineOptions,
    ) -> Engine:
        """Load the graphs of `stages`."""

    def sees_gpu(self) -> bool:
        """Return whether the installed library can use a GPU of this machine."""


def load_engine(
    bundle: Bundle,
    backend: str,
    device: str | None = None,
    stages: Sequence[StageName] | None = None,
    options: EngineOptions | None = None,
) -> Engine:
    """Load a verified bundle's graphs into an engine.

    Args:
        bundle: a bundle from `open_bundle`.
        backend: a name in `BACKENDS`; `engine_selection.select_engine` also accepts "auto".
        device: "cpu", "cuda" or "cuda:N"; None is the backend's default: the first GPU for compiled
            engines, the CPU for ONNX graphs.
        stages: the graphs to load; None loads all of them.
        options: how the engine is to run.

    Raises:
        BackendError: the backend is unknown or not installed, does not run such a bundle, does not
            support an option or the device, or refuses a graph.
    """
    from glesam_runtime.engine_options import EngineOptions
    from glesam_runtime.manifest import STAGES

    if backend not in BACKENDS:
        known = ", ".join(["auto", *BACKENDS])
        raise BackendError(f"backend {backend!r} is not known; known are {known}")
    if is_compiled(bundle) and not BACKENDS[backend].compiled:
        raise BackendError(
            f"{bundle.path}: holds {bundle.manifest.target.engine} engines, which {backend} cannot "
            f"run; leave out --backend, or give the ONNX bundle that they were compiled from"
        )
    options = options or EngineOptions()
    module = BACKENDS[backend].module
    _check_options(backend, module.OPTIONS, options)
    return module.load(bundle, device, STAGES if stages is None else stages, options)


def is_compiled(bundle: Bundle) -> bool:
    """Return whether a bundle holds compiled engines instead of ONNX graphs."""
    return bundle.manifest.target.engine != "onnx"


def installed() -> list[str]:
    """Return the names of the installed backends for ONNX bundles."""
    return [name for name, each in BACKENDS.items() if not each.compiled and each.is_installed]


def _check_options(name: str, supported: frozenset[str], options: EngineOptions) -> None:
    """Refuse options that a backend does not support, and name the backends that do."""
    from glesam_runtime.engine_options import changed_options
    from glesam_runtime.option_groups import flag

    for option in changed_options(options):
        if option not in supported:
            able = [other for other in BACKENDS.values() if option in other.module.OPTIONS]
            named = [
                each.name
                if each.compiled == BACKENDS[name].compiled
                else f"{each.name} (for {'compiled' if each.compiled else 'ONNX'} bundles)"
                for each in able
            ]
            raise BackendError(
                f"{name} does not support {flag(option)}; leave it out, or choose a backend that "
                f"supports it: {', '.join(named)}"
            )

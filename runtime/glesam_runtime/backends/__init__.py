"""Loading an inference engine. One module an engine, imported when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

from glesam_runtime.backends.base import EngineOptions
from glesam_runtime.errors import BackendError
from glesam_runtime.manifest import STAGES, StageName

if TYPE_CHECKING:
    from glesam_runtime.backends.base import Engine
    from glesam_runtime.bundle import Bundle

ONNX_BACKENDS: dict[str, str] = {"onnxruntime": "onnxruntime", "openvino": "openvino"}
"""Backends that run ONNX bundles -> the module that must be installed."""

ENGINE_BACKEND = "tensorrt"
"""Runs bundles of compiled engines, with the library that the manifest names."""

BACKENDS: tuple[str, ...] = (*ONNX_BACKENDS, ENGINE_BACKEND)


class _Loader(Protocol):
    """What every backend module offers."""

    def load(
        self,
        bundle: Bundle,
        device: str | None,
        stages: Sequence[StageName],
        options: EngineOptions,
    ) -> Engine:
        """Load the graphs of `stages`."""


def load_engine(
    bundle: Bundle,
    backend: str,
    device: str | None = None,
    stages: Sequence[StageName] = STAGES,
    options: EngineOptions | None = None,
) -> Engine:
    """Load a verified bundle's graphs into an engine.

    Args:
        bundle: from `open_bundle`.
        backend: a name of `BACKENDS`; `choose.choose_engine` finds one that fits.
        device: "cpu", "cuda", "cuda:N"; None is the backend's default: the first GPU for engines,
            the CPU for the others.
        stages: which graphs to load.
        options: how to run them.

    Raises:
        BackendError: an unknown or missing backend, one that does not run such bundles, a device
            that is not there, a graph it refuses or that is not the manifest's.
    """
    if backend not in BACKENDS:
        known = ", ".join(["auto", *BACKENDS])
        raise BackendError(f"backend {backend!r} is not known; known are {known}")
    if is_compiled(bundle) and backend != ENGINE_BACKEND:
        raise BackendError(
            f"{bundle.path}: holds {bundle.manifest.target.engine} engines, which {backend} cannot "
            f"run; leave out --backend, or give the ONNX bundle that they were compiled from"
        )
    module = cast("_Loader", importlib.import_module(f"glesam_runtime.backends.{backend}"))
    return module.load(bundle, device, stages, options or EngineOptions())


def is_compiled(bundle: Bundle) -> bool:
    """Whether a bundle holds engines instead of ONNX graphs."""
    return bundle.manifest.target.engine != "onnx"


def installed() -> list[str]:
    """Backends for ONNX bundles that are here."""
    return [name for name, module in ONNX_BACKENDS.items() if importlib.util.find_spec(module)]

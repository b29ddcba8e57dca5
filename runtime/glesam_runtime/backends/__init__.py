"""Choosing and loading an inference engine. One module an engine, imported when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

from glesam_runtime.errors import BackendError
from glesam_runtime.manifest import STAGES, StageName

if TYPE_CHECKING:
    from glesam_runtime.backends.base import Engine
    from glesam_runtime.bundle import Bundle

BACKENDS: dict[str, str] = {"onnxruntime": "onnxruntime"}
"""Backend name -> the module that must be installed for it. "auto" takes the first that is."""


class _Loader(Protocol):
    """What every backend module offers."""

    def load(self, bundle: Bundle, device: str | None, stages: Sequence[StageName]) -> Engine:
        """Load the graphs of `stages`."""


def load_engine(
    bundle: Bundle,
    backend: str = "auto",
    device: str | None = None,
    stages: Sequence[StageName] = STAGES,
) -> Engine:
    """Load a verified bundle's graphs into an engine.

    Args:
        bundle: from `open_bundle`.
        backend: a name of `BACKENDS`, or "auto" for the first that is installed.
        device: "cpu", "cuda", "cuda:N"; None is the backend's default, the CPU for onnxruntime.
        stages: which graphs to load.

    Raises:
        BackendError: an unknown or missing backend, a device that is not there, a graph it
            refuses or that is not the manifest's.
    """
    if backend == "auto":
        installed = (name for name, module in BACKENDS.items() if _is_installed(module))
        backend = next(installed, next(iter(BACKENDS)))
    if backend not in BACKENDS:
        known = ", ".join(["auto", *BACKENDS])
        raise BackendError(f"backend {backend!r} is not known; known are {known}")
    module = cast("_Loader", importlib.import_module(f"glesam_runtime.backends.{backend}"))
    return module.load(bundle, device, stages)


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None

"""Hide the differences between TensorRT 10, TensorRT 11 and TensorRT-RTX behind one object.

All three have the same Python API. They differ in this:

|                            | tensorrt 10       | tensorrt 11 | tensorrt-rtx               |
|----------------------------|-------------------|-------------|----------------------------|
| strong typing              | a creation flag   | always on   | always on                  |
| compute capabilities       | of the GPU in use | the same    | any it knows, without GPU  |
| timing cache               | yes               | yes         | calls have no effect       |
| hardware compatibility     | yes               | yes         | no                         |
| engines for later versions | yes               | yes         | no: the same version only  |
| CUDA graphs                | by the caller     | the same    | by its runtime config      |
"""

from __future__ import annotations

import functools
import importlib
import platform
from dataclasses import dataclass
from typing import Any

from glesam_runtime.errors import BackendError
from glesam_runtime.target import EngineFamily
from glesam_runtime.termination import interruptible_import


@dataclass(frozen=True)
class Family:
    """A TensorRT library and what it supports.

    Attributes:
        name: its name in the manifest.
        module: the Python module to import.
        extra: the extra of glesam-runtime that installs it.
        oldest: the oldest supported version.
        builds_without_gpu: whether it compiles for named compute capabilities without a GPU.
        timing_cache: whether kernel timings can be kept from build to build.
        hardware_compatible: whether engines can be built to run on other architectures.
        version_compatible: whether engines can be built to run on later versions.
    """

    name: EngineFamily
    module: str
    extra: str
    oldest: tuple[int, int]
    builds_without_gpu: bool
    timing_cache: bool
    hardware_compatible: bool
    version_compatible: bool


FAMILIES: dict[EngineFamily, Family] = {
    "tensorrt": Family(
        name="tensorrt",
        module="tensorrt",
        extra="trt",
        oldest=(10, 13),
        builds_without_gpu=False,
        timing_cache=True,
        hardware_compatible=True,
        version_compatible=True,
    ),
    "tensorrt-rtx": Family(
        name="tensorrt-rtx",
        module="tensorrt_rtx",
        extra="rtx",
        oldest=(1, 0),
        builds_without_gpu=True,
        timing_cache=False,
        hardware_compatible=False,
        version_compatible=False,
    ),
}


@dataclass(frozen=True)
class Api:
    """An imported TensorRT library.

    Attributes:
        family: which library it is.
        trt: its Python module.
    """

    family: Family
    trt: Any

    @property
    def version(self) -> str:
        """Return the library's own version, such as "1.7.1.116"."""
        return str(self.trt.__version__)

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Return the compute capabilities it compiles for without a GPU, sorted; SM89 is "8.9"."""
        names = getattr(getattr(self.trt, "ComputeCapability", None), "__members__", {})
        digits = [name[2:] for name in names if name.startswith("SM") and name[2:].isdecimal()]
        return tuple(f"{n[:-1]}.{n[-1]}" for n in sorted(digits, key=int))

    @property
    def creation_flags(self) -> int:
        """Return the flags for create_network: strong typing, where that is not the only mode."""
        flags = getattr(self.trt, "NetworkDefinitionCreationFlag", None)
        flag = getattr(flags, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    def runtime_config(self, engine: Any, cuda_graphs: bool) -> Any | None:
        """Return a configuration for create_execution_context, None if the library has none.

        TensorRT-RTX compiles kernels at the first run of a shape and captures CUDA graphs itself. A
        graph captured by the caller would keep kernels that the library replaces later.
        """
        strategies = getattr(self.trt, "CudaGraphStrategy", None)
        if strategies is None or not cuda_graphs:
            return None
        config = engine.create_runtime_config()
        config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE
        return config


def import_family(name: EngineFamily) -> Api:
    """Import the library of a family.

    Raises:
        BackendError: the library is not installed, does not load, or is too old.
    """
    family = FAMILIES[name]
    try:
        with interruptible_import():
            module = importlib.import_module(family.module)
    except (ImportError, OSError) as error:  # OSError: a shared library does not load
        raise BackendError(
            f"{name} cannot be imported ({error}); pip install 'glesam-runtime[{family.extra}]'"
        ) from error
    api = Api(family, module)
    if version_tuple(api.version)[:2] < family.oldest:
        oldest = ".".join(map(str, family.oldest))
        raise BackendError(
            f"{name} {api.version} is too old, {oldest} or later is needed; "
            f"pip install -U 'glesam-runtime[{family.extra}]'"
        )
    return api


@functools.cache
def logger_of(api: Api) -> Any:
    """Return the library's logger, which keeps error messages and ignores all others.

    Each library has one logger: TensorRT uses the first that a process gives it and ignores others.
    """

    class Logger(api.trt.ILogger):  # type: ignore[misc, name-defined]
        """A logger that keeps error messages for the exception that follows."""

        def __init__(self) -> None:
            api.trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Keep a message if it is an error; the library calls this from any of its threads."""
            if severity in (api.trt.ILogger.ERROR, api.trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

        def take(self) -> str:
            """Return the first error since the last call, and forget all errors."""
            first = self.errors[0] if self.errors else "the library gives no reason"
            self.errors.clear()
            return first

    return Logger()


def version_tuple(version: str) -> tuple[int, ...]:
    """Return the numbers of a version up to the first other part: "10.13" -> (10, 13)."""
    numbers = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


def system_name() -> str:
    """Return operating system and processor as the manifest spells them: "linux-x86_64"."""
    processor = platform.machine().lower()
    return f"{platform.system().lower()}-{'x86_64' if processor == 'amd64' else processor}"

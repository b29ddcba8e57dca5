"""In what the TensorRT libraries differ: 10, 11 and TensorRT-RTX, behind one object.

All three share one Python API. What is not alike, and nothing else, is here:

|                            | tensorrt 10       | tensorrt 11 | tensorrt-rtx               |
|----------------------------|-------------------|-------------|----------------------------|
| strong typing              | a creation flag   | always on   | always on                  |
| compute capabilities       | the GPU at hand   | likewise    | any that it knows, no GPU  |
| timing cache               | yes               | yes         | calls that do nothing      |
| hardware compatibility     | yes               | yes         | no                         |
| engines for later versions | yes               | yes         | no: this very version      |
| CUDA graphs                | the caller's      | likewise    | its own, by runtime config |
"""

from __future__ import annotations

import functools
import importlib
import platform
from dataclasses import dataclass
from typing import Any

from glesam_runtime.errors import BackendError
from glesam_runtime.target import EngineFamily


@dataclass(frozen=True)
class Family:
    """What a library can be asked for.

    Attributes:
        name: as in the manifest.
        module: to import.
        extra: of this distribution, that installs it.
        oldest: version that is supported.
        builds_without_gpu: it compiles for compute capabilities that are named.
        timing_cache: measured kernels can be kept from build to build.
        hardware_compatible: engines can be asked to run on other architectures.
        version_compatible: engines can be asked to run on later versions.
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
    """An imported library.

    Attributes:
        family: which it is.
        trt: its module.
    """

    family: Family
    trt: Any

    @property
    def version(self) -> str:
        """As the library spells it, "1.7.1.116"."""
        return str(self.trt.__version__)

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Compute capabilities that it compiles for without a GPU, "8.9" for SM89, in order."""
        names = getattr(getattr(self.trt, "ComputeCapability", None), "__members__", {})
        digits = [name[2:] for name in names if name.startswith("SM") and name[2:].isdecimal()]
        return tuple(f"{n[:-1]}.{n[-1]}" for n in sorted(digits, key=int))

    @property
    def creation_flags(self) -> int:
        """For create_network: strong typing, where it has to be asked for."""
        flags = getattr(self.trt, "NetworkDefinitionCreationFlag", None)
        flag = getattr(flags, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    def runtime_config(self, engine: Any, cuda_graphs: bool) -> Any | None:
        """A configuration for create_execution_context; None where the library has none.

        TensorRT-RTX compiles kernels when shapes are first seen and captures graphs itself; a
        graph of the caller's around it would hold kernels that it means to replace.
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
        BackendError: it is not installed, does not load, or is too old.
    """
    family = FAMILIES[name]
    try:
        module = importlib.import_module(family.module)
    except (ImportError, OSError) as error:  # OSError: a shared library that does not load
        raise BackendError(
            f"{name} cannot be imported ({error}); pip install 'glesam-deploy[{family.extra}]'"
        ) from error
    api = Api(family, module)
    if version_tuple(api.version)[:2] < family.oldest:
        oldest = ".".join(map(str, family.oldest))
        raise BackendError(
            f"{name} {api.version} is too old, {oldest} or later is needed; "
            f"pip install -U 'glesam-deploy[{family.extra}]'"
        )
    return api


@functools.cache
def logger_of(api: Api) -> Any:
    """The library's logger: keeps its errors in `errors`, passes everything else over.

    One for each library: TensorRT takes the first it is given in a process and ignores others.
    """

    class Logger(api.trt.ILogger):  # type: ignore[misc, name-defined]
        """Remembers what went wrong, for the exception that follows."""

        def __init__(self) -> None:
            api.trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Called by the library, from any of its threads."""
            if severity in (api.trt.ILogger.ERROR, api.trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

        def take(self) -> str:
            """The first error since the last call, in the library's words, and forget them all."""
            first = self.errors[0] if self.errors else "it gives no reason"
            self.errors.clear()
            return first

    return Logger()


def version_tuple(version: str) -> tuple[int, ...]:
    """Numbers of a version: "10.13.3.9" -> (10, 13, 3, 9). What is no number ends it."""
    numbers = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


def system_name() -> str:
    """Operating system and processor as the manifest spells them: "linux-x86_64"."""
    processor = platform.machine().lower()
    return f"{platform.system().lower()}-{'x86_64' if processor == 'amd64' else processor}"

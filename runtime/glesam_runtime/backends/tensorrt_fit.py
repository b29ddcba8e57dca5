"""Whether engines run here, found out before one is deserialized.

TensorRT's own answer to an engine of another version, system or GPU is a serialization error with
a line number of its sources in it. The manifest says what is needed, so the mismatch can be named.
"""

from __future__ import annotations

from dataclasses import dataclass

from glesam_runtime.backends.tensorrt_api import version_tuple
from glesam_runtime.errors import BackendError
from glesam_runtime.target import EngineBuild, EngineFamily, Target


@dataclass(frozen=True)
class Gpu:
    """The device engines are to run on: "NVIDIA L4", its compute capability "8.9", its number."""

    name: str
    capability: str
    index: int = 0


def check_library(target: Target, version: str, system: str, where: str) -> None:
    """Refuse engines of another system or library version.

    Args:
        target: the bundle's.
        version: of the library that is installed.
        system: that runs here, from `system_name`.
        where: the bundle, for messages.

    Raises:
        BackendError: naming what differs and the command that mends it.
    """
    build = _build_of(target)
    if build.system != system:
        raise BackendError(
            f"{where}: its engines were built on {build.system}, this is {system}; "
            f"{_rebuild(target)} on this system"
        )
    if _runs_on(build, version):
        return
    later = f" or later, below {_major(build) + 2}.0" if build.version_compatible else ""
    raise BackendError(
        f"{where}: its engines need {target.engine} {build.version}{later}, {version} is installed;"
        f" {_rebuild(target)}, or pip install '{target.engine}=={build.version}'"
    )


def check_gpu(target: Target, gpu: Gpu, where: str) -> None:
    """Refuse engines for other GPUs.

    Raises:
        BackendError: naming the GPU, what the engines run on, and the command that mends it.
    """
    build = _build_of(target)
    if gpu.capability in build.compute_capabilities:
        return  # on another model of the same kind too: kernels were chosen for its neighbour
    if build.hardware_compatibility == "ampere_plus" and version_tuple(gpu.capability) >= (8, 0):
        return
    more = f" --compute-capability {gpu.capability}" if target.engine == "tensorrt-rtx" else ""
    raise BackendError(
        f"{where}: its engines run on compute capability {', '.join(build.compute_capabilities)}, "
        f"cuda:{gpu.index} is {gpu.name} with {gpu.capability}; {_rebuild(target)}{more}"
    )


def engine_family(target: Target, where: str) -> EngineFamily:
    """The library that a bundle's engines need.

    Raises:
        BackendError: it holds ONNX graphs.
    """
    if target.engine == "onnx":
        raise BackendError(
            f"{where}: an ONNX bundle; compile it with glesam-export trt --bundle {where} -o DIR, "
            "or run it with --backend onnxruntime"
        )
    return target.engine


def _build_of(target: Target) -> EngineBuild:
    assert target.build is not None, "the manifest's reader has seen to it"
    return target.build


def _runs_on(build: EngineBuild, version: str) -> bool:
    built, here = version_tuple(build.version), version_tuple(version)
    if not build.version_compatible:
        return built == here
    # Into the next major version (10 in 11), not into an older one.
    return built <= here and here[0] <= built[0] + 1


def _major(build: EngineBuild) -> int:
    return version_tuple(build.version)[0]


def _rebuild(target: Target) -> str:
    return f"glesam-export trt --engine {target.engine} --bundle ONNX_BUNDLE"

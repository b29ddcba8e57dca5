"""Load TensorRT and TensorRT-RTX engines, and check that they fit this machine.

What an engine was built for is checked before it is deserialized. TensorRT's own answer to an
engine of another version, system or GPU is a serialization error that only names a line of its
source code; the manifest says what the engine needs, so the message can name the mismatch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from glesam_runtime.backends.base import FoundTensor, check_interface
from glesam_runtime.backends.cuda import Device, Gpu, device_number
from glesam_runtime.backends.tensorrt_api import (
    Api,
    import_family,
    logger_of,
    system_name,
    version_tuple,
)
from glesam_runtime.backends.tensorrt_engine import TrtEngine
from glesam_runtime.errors import BackendError

if TYPE_CHECKING:
    from pathlib import Path

    from glesam_runtime.bundle import Bundle
    from glesam_runtime.engine_options import EngineOptions
    from glesam_runtime.manifest import StageName
    from glesam_runtime.target import EngineBuild, EngineFamily, Target

OPTIONS = frozenset({"cuda_graphs"})


def load(
    bundle: Bundle,
    device: str | None,
    stages: Sequence[StageName],
    options: EngineOptions,
) -> TrtEngine:
    """Load engines onto a GPU, after checking that they run there.

    Raises:
        BackendError: the library, the driver or the GPU is missing or is not the one that the
            engines were built for, or an engine cannot be loaded.
    """
    target, where = bundle.manifest.target, str(bundle.path)
    family = _engine_family(target, where)
    number = device_number(device)
    api = import_family(family)
    check_library(target, api.version, system_name(), where)
    try:
        gpu = Device(number)
    except BackendError as error:
        raise BackendError(
            f"{where}: {error}; its engines need a GPU, the ONNX bundle that they were compiled "
            "from also runs on a CPU"
        ) from error
    check_gpu(target, gpu.gpu, where)
    runtime = api.trt.Runtime(logger_of(api))
    engine = TrtEngine(api, gpu, options)
    for stage in stages:
        path = bundle.graph_path(stage)
        built = _deserialize(api, runtime, path)
        if target.build is not None and target.build.stripped:
            _refit(api, built, path, bundle.weights_path(stage))
        spec = bundle.manifest.stages[stage]
        tensors = (*spec.inputs, *spec.outputs)
        check_interface(path, "tensors", _found(api.trt, built), tensors, exact=True)
        engine.add(stage, spec, built)
    return engine


def check_library(target: Target, version: str, system: str, where: str) -> None:
    """Refuse engines of another system or library version.

    Args:
        target: the target of the bundle.
        version: version of the installed library.
        system: this system, from `system_name`.
        where: the bundle's path, for messages.

    Raises:
        BackendError: naming the difference and the command that resolves it.
    """
    build = _build_of(target)
    if build.system != system:
        raise BackendError(
            f"{where}: its engines were built on {build.system}, this is {system}; "
            f"{_rebuild(target)} on this system"
        )
    if _runs_on(build, version):
        return
    major = version_tuple(build.version)[0]
    later = f" or later, below {major + 2}.0" if build.version_compatible else ""
    raise BackendError(
        f"{where}: its engines need {target.engine} {build.version}{later}, {version} is installed;"
        f" {_rebuild(target)}, or pip install '{target.engine}=={build.version}'"
    )


def check_gpu(target: Target, gpu: Gpu, where: str) -> None:
    """Refuse engines that were built for other GPUs.

    Raises:
        BackendError: naming the GPU, what the engines run on, and the command that resolves it.
    """
    build = _build_of(target)
    if gpu.capability in build.compute_capabilities:
        return  # another GPU of the same capability also runs it, with kernels tuned for the first
    if build.hardware_compatibility == "ampere_plus" and version_tuple(gpu.capability) >= (8, 0):
        return
    more = f" --compute-capability {gpu.capability}" if target.engine == "tensorrt-rtx" else ""
    raise BackendError(
        f"{where}: its engines run on compute capability {', '.join(build.compute_capabilities)}, "
        f"cuda:{gpu.index} is {gpu.name} with {gpu.capability}; {_rebuild(target)}{more}"
    )


def _engine_family(target: Target, where: str) -> EngineFamily:
    """Return the library that a bundle's engines need; an ONNX bundle is refused."""
    if target.engine == "onnx":
        raise BackendError(
            f"{where}: an ONNX bundle; compile it with glesam-export trt --bundle {where} -o DIR, "
            "or run it with --backend onnxruntime"
        )
    return target.engine


def _build_of(target: Target) -> EngineBuild:
    assert target.build is not None, "the manifest's reader has checked it"
    return target.build


def _runs_on(build: EngineBuild, version: str) -> bool:
    built, here = version_tuple(build.version), version_tuple(version)
    if not build.version_compatible:
        return built == here
    # A compatible engine runs on later versions up to the next major one (10 on 11).
    return built <= here and here[0] <= built[0] + 1


def _rebuild(target: Target) -> str:
    return f"glesam-export trt --engine {target.engine} --bundle ONNX_BUNDLE"


def _deserialize(api: Api, runtime: Any, path: Path) -> Any:
    """Return the engine of a file whose hash has been checked."""
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise BackendError(
            f"{path}: {api.family.name} {api.version} cannot load it: {logger_of(api).take()}"
        )
    return engine


def _refit(api: Api, engine: Any, path: Path, weights: Path | None) -> None:
    """Load the weights of its ONNX graph into an engine that was built without weights."""
    logger = logger_of(api)
    refitter = api.trt.Refitter(engine, logger)
    parser = api.trt.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(str(weights)) or not refitter.refit_cuda_engine():
        raise BackendError(f"{path}: the weights of {weights} do not fit it: {logger.take()}")


def _found(trt: Any, engine: Any) -> list[FoundTensor]:
    """Describe the inputs and outputs of an engine; -1 is an axis of any size."""
    tensors = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        dtype = engine.get_tensor_dtype(name)
        shape = tuple(None if size == -1 else size for size in engine.get_tensor_shape(name))
        tensors.append(FoundTensor(name, str(dtype), dtype == trt.DataType.FLOAT, shape))
    return tensors

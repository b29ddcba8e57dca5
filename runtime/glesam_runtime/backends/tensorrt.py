"""TensorRT and TensorRT-RTX: engines that were compiled for this very kind of machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from glesam_runtime.backends.base import EngineOptions
from glesam_runtime.backends.cuda import Device, device_number
from glesam_runtime.backends.tensorrt_api import Api, import_family, logger_of, system_name
from glesam_runtime.backends.tensorrt_engine import TrtEngine
from glesam_runtime.backends.tensorrt_fit import check_gpu, check_library, engine_family
from glesam_runtime.errors import BackendError
from glesam_runtime.manifest import Stage, StageName

if TYPE_CHECKING:
    from pathlib import Path

    from glesam_runtime.bundle import Bundle


def load(
    bundle: Bundle,
    device: str | None,
    stages: Sequence[StageName],
    options: EngineOptions,
) -> TrtEngine:
    """Load engines onto a GPU, after making sure that they run there.

    Raises:
        BackendError: the library, the driver or the GPU is missing or is not what the engines were
            built for, or an engine cannot be loaded.
    """
    target, where = bundle.manifest.target, str(bundle.path)
    family = engine_family(target, where)
    number = device_number(device)
    api = import_family(family)
    check_library(target, api.version, system_name(), where)
    try:
        gpu = Device(number)
    except BackendError as error:
        raise BackendError(
            f"{where}: {error}; its engines need one, the ONNX bundle that they were compiled from "
            "runs on a CPU too"
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
        _check_interface(api.trt, built, spec)
        engine.add(stage, spec, built)
    return engine


def _deserialize(api: Api, runtime: Any, path: Path) -> Any:
    """The engine of a file whose hash has been checked."""
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise BackendError(
            f"{path}: {api.family.name} {api.version} cannot load it: {logger_of(api).take()}"
        )
    return engine


def _refit(api: Api, engine: Any, path: Path, weights: Path | None) -> None:
    """Give an engine that was built without weights those of its ONNX graph."""
    logger = logger_of(api)
    refitter = api.trt.Refitter(engine, logger)
    parser = api.trt.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(str(weights)) or not refitter.refit_cuda_engine():
        raise BackendError(f"{path}: the weights of {weights} do not fit it: {logger.take()}")


def _check_interface(trt: Any, engine: Any, spec: Stage) -> None:
    """Refuse an engine whose tensors are not those of the manifest."""
    found = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        shape = tuple(engine.get_tensor_shape(name))
        found[name] = (engine.get_tensor_dtype(name) == trt.DataType.FLOAT, shape)
    for tensor in (*spec.inputs, *spec.outputs):
        wanted = tuple(-1 if isinstance(axis, str) else axis for axis in tensor.shape)
        if found.pop(tensor.name, None) != (True, wanted):
            raise BackendError(
                f"{spec.graph.file}: {tensor.name} is not the manifest's float32 "
                f"{list(tensor.shape)}; compile the bundle again"
            )
    if found:
        raise BackendError(f"{spec.graph.file}: {', '.join(found)} is not in the manifest")

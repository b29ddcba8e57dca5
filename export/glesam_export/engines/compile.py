"""Parses an ONNX graph and compiles it into an engine file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glesam_export.engines.build_options import EngineBuildOptions
from glesam_export.engines.build_progress import show_progress
from glesam_export.engines.polygraphy_driver import drive_polygraphy
from glesam_runtime.backends.tensorrt_api import Api, version_tuple
from glesam_runtime.manifest import TensorSpec
from glesam_runtime.target import AxisRange


@dataclass(frozen=True)
class Network:
    """Holds a parsed graph.

    Attributes:
        builder: the library's builder that created the network.
        definition: INetworkDefinition. It refers to weights that `parser` owns.
        parser: must live as long as `definition`.
    """

    builder: Any
    definition: Any
    parser: Any


def parse(api: Api, graph: Path) -> Network:
    """Parse an ONNX graph into a strongly typed network.

    Raises:
        BackendError: the parser rejects the graph; the message quotes it.
    """
    with drive_polygraphy(api, f"{graph}: parsing"):
        from polygraphy.backend.trt import network_from_onnx_path

        strongly_typed = bool(api.creation_flags)
        builder, definition, parser = network_from_onnx_path(
            str(graph), strongly_typed=strongly_typed
        )
    return Network(builder, definition, parser)


def compile_network(
    api: Api,
    network: Network,
    inputs: Sequence[TensorSpec],
    options: EngineBuildOptions,
    destination: Path,
    name: str,
) -> None:
    """Compile a network and write its engine.

    Args:
        api: the engine library.
        network: the parsed graph.
        inputs: of the stage; their dynamic axes take the sizes of the options' profile.
        options: control the build; `require_support` has accepted them.
        destination: the .engine file to write.
        name: identifies the stage in progress bars and error messages.

    Raises:
        BackendError: the build failed; the message quotes the library.
        KeyboardInterrupt: the user pressed Ctrl-C; no file is written.
    """
    with drive_polygraphy(api, name), show_progress(api, name) as monitor:
        from polygraphy.backend.trt import engine_bytes_from_network

        config = make_config(api, inputs, options, monitor)
        engine = engine_bytes_from_network(
            (network.builder, network.definition),
            config,
            save_timing_cache=str(options.timing_cache) if options.timing_cache else None,
        )
        with destination.open("wb") as file:
            file.write(memoryview(engine))


def ranges(inputs: Sequence[TensorSpec], profile: Mapping[str, AxisRange]) -> dict[str, AxisRange]:
    """Return the profile's entries for the dynamic axes of these inputs."""
    dynamic = {axis for tensor in inputs for axis in tensor.shape if isinstance(axis, str)}
    return {axis: profile[axis] for axis in sorted(dynamic)}


def make_config(
    api: Api, inputs: Sequence[TensorSpec], options: EngineBuildOptions, monitor: Any
) -> Any:
    """Return a Polygraphy loader that creates the builder configuration.

    Args:
        api: the engine library.
        inputs: of the stage.
        options: control the build.
        monitor: the library's IProgressMonitor, or None.
    """
    from polygraphy.backend.trt import CreateConfig, Profile

    trt = api.trt
    shapes = Profile()
    for tensor in inputs:
        if any(isinstance(axis, str) for axis in tensor.shape):
            shapes.add(
                tensor.name,
                *(_shape(tensor, options.axis_ranges, end) for end in ("min", "opt", "max")),
            )
    settings: dict[str, Any] = {
        "profiles": [shapes],
        "progress_monitor": monitor,
        "builder_optimization_level": options.builder_optimization_level,
        "refittable": options.strip_weights,
        "strip_plan": options.strip_weights,
        # Keeps the names and types of layers in the engine, which the precision check reads.
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
    }
    if options.workspace_bytes is not None:
        settings["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: options.workspace_bytes}
    if api.family.builds_without_gpu:
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        named = [version_tuple(name) for name in options.capabilities]
        return CreateConfigRTX(use_gpu=not named, compute_capabilities=named or None, **settings)
    if options.hardware_compatibility != "none":
        level = getattr(trt.HardwareCompatibilityLevel, options.hardware_compatibility.upper())
        settings["hardware_compatibility_level"] = level
    if options.saved_timing_cache is not None:
        settings["load_timing_cache"] = str(options.saved_timing_cache)
    return CreateConfig(version_compatible=options.version_compatible, **settings)


def _shape(tensor: TensorSpec, profile: Mapping[str, AxisRange], end: str) -> tuple[int, ...]:
    """Return a tensor's shape at the "min", "opt" or "max" of the profile."""
    return tuple(
        getattr(profile[axis], end) if isinstance(axis, str) else axis for axis in tensor.shape
    )

"""One network to one engine file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glesam_export.engines.monitor import watched
from glesam_export.engines.network import Network
from glesam_export.engines.plan import Plan
from glesam_export.engines.polygraph import driving
from glesam_runtime.backends.tensorrt_api import Api, version_tuple
from glesam_runtime.manifest import TensorSpec
from glesam_runtime.target import AxisRange


def compile_network(
    api: Api,
    network: Network,
    inputs: Sequence[TensorSpec],
    plan: Plan,
    destination: Path,
    what: str,
) -> None:
    """Compile a network and write its engine.

    Args:
        api: the library.
        network: parsed.
        inputs: of the stage, whose free axes get the plan's profile.
        plan: checked.
        destination: the .engine file.
        what: is compiled, for progress and messages.

    Raises:
        BackendError: the library failed, in its own words.
        KeyboardInterrupt: Ctrl-C; nothing was written.
    """
    with driving(api, what), watched(api, what) as monitor:
        from polygraphy.backend.trt import engine_bytes_from_network

        config = make_config(api, inputs, plan, monitor)
        engine = engine_bytes_from_network(
            (network.builder, network.definition),
            config,
            save_timing_cache=str(plan.timing_cache) if plan.timing_cache else None,
        )
        with destination.open("wb") as file:
            file.write(memoryview(engine))


def ranges(inputs: Sequence[TensorSpec], profile: Mapping[str, AxisRange]) -> dict[str, AxisRange]:
    """The part of a profile that a stage has axes for."""
    free = {axis for tensor in inputs for axis in tensor.shape if isinstance(axis, str)}
    return {axis: profile[axis] for axis in sorted(free)}


def make_config(api: Api, inputs: Sequence[TensorSpec], plan: Plan, monitor: Any) -> Any:
    """Polygraphy's maker of a builder configuration."""
    from polygraphy.backend.trt import CreateConfig, Profile

    trt = api.trt
    shapes = Profile()
    for tensor in inputs:
        if any(isinstance(axis, str) for axis in tensor.shape):
            shapes.add(
                tensor.name,
                *(_sized(tensor, plan.profile, end) for end in ("min", "opt", "max")),
            )
    asked: dict[str, Any] = {
        "profiles": [shapes],
        "progress_monitor": monitor,
        "builder_optimization_level": plan.optimization_level,
        "refittable": plan.strip,
        "strip_plan": plan.strip,
        # Names and types of layers in the engine: what the inspector is asked for afterwards.
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
    }
    if plan.workspace is not None:
        asked["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: plan.workspace}
    if api.family.builds_without_gpu:
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        named = [version_tuple(name) for name in plan.capabilities]
        return CreateConfigRTX(use_gpu=not named, compute_capabilities=named or None, **asked)
    if plan.hardware_compatibility != "none":
        level = getattr(trt.HardwareCompatibilityLevel, plan.hardware_compatibility.upper())
        asked["hardware_compatibility_level"] = level
    if plan.timing_cache is not None and plan.timing_cache.exists():
        asked["load_timing_cache"] = str(plan.timing_cache)
    return CreateConfig(version_compatible=plan.version_compatible, **asked)


def _sized(tensor: TensorSpec, profile: Mapping[str, AxisRange], end: str) -> tuple[int, ...]:
    """A tensor's shape at one end of the profile."""
    return tuple(
        getattr(profile[axis], end) if isinstance(axis, str) else axis for axis in tensor.shape
    )

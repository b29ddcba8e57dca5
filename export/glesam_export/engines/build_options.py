"""Declares the options of an engine build, and checks that the engine library supports them.

Each field of `EngineBuildOptions` is an option of `glesam-export trt`. To add one: declare it here,
apply it in `compile.make_config`, test it in tests/export/test_engines.py and document it in
docs/tensorrt.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer

from glesam_runtime.backends.cuda import Device, Gpu
from glesam_runtime.backends.tensorrt_api import Api
from glesam_runtime.errors import BackendError, InputError
from glesam_runtime.target import ENGINE_FAMILIES, AxisRange, EngineFamily, HardwareCompatibility

PROFILE: Mapping[str, AxisRange] = {
    "N": AxisRange(1, 1, 8),
    "B": AxisRange(1, 1, 64),
    "P": AxisRange(1, 2, 16),
    "I": AxisRange(1, 1, 16),
}
"""Default sizes of the dynamic axes: images, prompts, and points per prompt; I is the
number of images of a decoder that takes several.

TensorRT tunes its kernels for the middle size: one image, and one prompt of a point and its padding
point. `--everything` sends up to 64 prompts at a time.
"""

ENGINES_PANEL = "Engines"
"""The heading of these options in --help."""

_GIB = 1 << 30


def engine_option(*names: str, help_text: str, **settings: Any) -> typer.models.OptionInfo:
    """Declare an option under the heading of the engine options."""
    option: typer.models.OptionInfo = typer.Option(
        *names, help=help_text, rich_help_panel=ENGINES_PANEL, **settings
    )
    return option


@dataclass(frozen=True)
class EngineBuildOptions:
    """Collects the options that control how engines are built.

    Raises:
        InputError: a value is malformed or out of range.
    """

    engine: Annotated[
        str,
        engine_option(
            help_text="Engine library: tensorrt (data-centre and Jetson GPUs; builds on the target "
            "GPU) or tensorrt-rtx (RTX GPUs; builds on any machine)."
        ),
    ] = "tensorrt"
    compute_capability: Annotated[
        list[str] | None,
        engine_option(
            metavar="M.N",
            help_text="Compute capability to build for, for example 8.9. Repeat it for several "
            "GPUs. tensorrt-rtx only. Default: the GPU of this machine.",
        ),
    ] = None
    profile: Annotated[
        list[str] | None,
        engine_option(
            metavar="AXIS=MIN:OPT:MAX",
            help_text="Minimum, optimal and maximum size that the engines accept for one dynamic "
            "axis: N (images), B (prompts), P (points per prompt) or I (images of one decoder "
            "call, with --image-index). Repeat it for several axes. "
            "Default: "
            f"{' '.join(f'{axis}={sizes}' for axis, sizes in PROFILE.items())}.",
        ),
    ] = None
    workspace: Annotated[
        float | None,
        engine_option(
            metavar="GIB",
            help_text="Maximum scratch memory of the kernels on the GPU, in GiB. Default: the "
            "library's limit.",
        ),
    ] = None
    builder_optimization_level: Annotated[
        int | None,
        engine_option(
            min=0,
            max=5,
            help_text="Build effort, from 0 (fast build) to 5 (fast engine). Default: the "
            "library's level.",
        ),
    ] = None
    hardware_compatibility: Annotated[
        HardwareCompatibility,
        engine_option(
            help_text="Other GPUs that the engines must run on; costs some speed. tensorrt only."
        ),
    ] = "none"
    version_compatible: Annotated[
        bool,
        engine_option(
            "--version-compatible",
            help_text="Build engines that later TensorRT versions can load. tensorrt only.",
        ),
    ] = False
    strip_weights: Annotated[
        bool,
        engine_option(
            "--strip-weights",
            help_text="Store the weights beside the engines. 'glesam-export refit' can then "
            "replace them (another LoRA or gamma) without a rebuild.",
        ),
    ] = False
    timing_cache: Annotated[
        Path | None,
        engine_option(
            help_text="File of kernel timings. The build reads and extends it, which makes later "
            "builds faster. tensorrt only."
        ),
    ] = None

    def __post_init__(self) -> None:
        """Reject bad values before any work starts."""
        _ = self.family, self.axis_ranges, self.workspace_bytes

    @cached_property
    def family(self) -> EngineFamily:
        """Return the engine library."""
        return family_named(self.engine, "--engine")

    @cached_property
    def capabilities(self) -> tuple[str, ...]:
        """Return each requested compute capability once; empty means the GPU of this machine."""
        return tuple(dict.fromkeys(self.compute_capability or ()))

    @cached_property
    def axis_ranges(self) -> dict[str, AxisRange]:
        """Return the sizes of every dynamic axis, by its letter."""
        return profile_of(self.profile or ())

    @cached_property
    def workspace_bytes(self) -> int | None:
        """Return the scratch memory limit in bytes; None leaves it to the library."""
        return workspace_bytes(self.workspace)

    @property
    def saved_timing_cache(self) -> Path | None:
        """Return the timing cache if the file exists already."""
        return self.timing_cache if self.timing_cache and self.timing_cache.exists() else None


def family_named(name: str, option: str) -> EngineFamily:
    """Return the engine family of that name.

    Args:
        name: as the user gave it.
        option: the option that it was given to, for the error message.

    Raises:
        InputError: no family has that name.
    """
    for family in ENGINE_FAMILIES:
        if name == family:
            return family
    raise InputError(f"{option} {name}: choose {' or '.join(ENGINE_FAMILIES)}")


def profile_of(given: Sequence[str]) -> dict[str, AxisRange]:
    """Return the default profile with the given axes replaced.

    Args:
        given: texts of the form AXIS=MIN:OPT:MAX.

    Raises:
        InputError: a text is malformed, names an unknown axis, or has sizes out of order.
    """
    profile = dict(PROFILE)
    for text in given:
        match = re.fullmatch(r"([A-Z])=(\d{1,6}):(\d{1,6}):(\d{1,6})", text)
        if match is None:
            raise InputError(f"--profile {text}: pass AXIS=MIN:OPT:MAX, for example B=1:1:64")
        axis, low, usual, high = match[1], *map(int, match.groups()[1:])
        if axis not in profile:
            raise InputError(f"--profile {text}: the axes are {', '.join(profile)}")
        if not 1 <= low <= usual <= high:
            raise InputError(f"--profile {text}: needs 1 <= MIN <= OPT <= MAX")
        profile[axis] = AxisRange(low, usual, high)
    return profile


def workspace_bytes(gib: float | None) -> int | None:
    """Convert the value of --workspace from GiB to bytes.

    Raises:
        InputError: the value is not a positive finite number.
    """
    if gib is None:
        return None
    if not 0 < gib < float("inf"):
        raise InputError(f"--workspace {gib:g}: pass a positive number of GiB")
    return int(gib * _GIB)


def require_support(options: EngineBuildOptions, api: Api) -> None:
    """Reject options that the engine library does not support.

    Raises:
        InputError: the library lacks an option, or does not know a compute capability.
    """
    family = api.family
    compatible = options.hardware_compatibility != "none"
    for option, given, supported in (
        ("--hardware-compatibility", compatible, family.hardware_compatible),
        ("--version-compatible", options.version_compatible, family.version_compatible),
        ("--timing-cache", options.timing_cache is not None, family.timing_cache),
        ("--compute-capability", bool(options.capabilities), family.builds_without_gpu),
    ):
        if given and not supported:
            raise InputError(f"{option}: {family.name} does not support it; leave it out")
    unknown = [name for name in options.capabilities if name not in api.capabilities]
    if unknown:
        raise InputError(
            f"--compute-capability {unknown[0]}: {family.name} {api.version} supports "
            f"{', '.join(api.capabilities)}"
        )
    if options.strip_weights and options.capabilities:
        raise InputError(
            "--strip-weights: refittable engines must be built on their target GPU; run the "
            "command there without --compute-capability"
        )


def find_gpu(options: EngineBuildOptions, api: Api) -> Gpu | None:
    """Return the GPU of this machine, or None if the options name compute capabilities.

    Raises:
        BackendError: this machine has no usable GPU; the message says what works without one.
    """
    if options.capabilities:
        return None
    try:
        return Device().gpu
    except BackendError as error:
        if api.family.builds_without_gpu and not options.strip_weights:
            remedy = f"name the target with --compute-capability ({', '.join(api.capabilities)})"
        else:
            remedy = (
                "run this command on the target machine, or build for RTX GPUs on any machine with "
                "--engine tensorrt-rtx --compute-capability 8.9"
            )
        raise BackendError(
            f"{api.family.name} finds no GPU to compile for ({error}); {remedy}"
        ) from error

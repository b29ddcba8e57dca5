"""What is to be compiled and for what: checked against what the library can do before any work."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glesam_runtime.backends.cuda import Device, Gpu
from glesam_runtime.backends.tensorrt_api import Api
from glesam_runtime.errors import BackendError, InputError
from glesam_runtime.target import ENGINE_FAMILIES, AxisRange, EngineFamily, HardwareCompatibility

PROFILE: Mapping[str, AxisRange] = {
    "N": AxisRange(1, 1, 8),
    "B": AxisRange(1, 1, 64),
    "P": AxisRange(1, 2, 16),
}
"""Images, prompts and points a prompt, unless asked otherwise. The kernels are chosen for one
image and one prompt of a point and its padding; 64 prompts are a batch of --everything."""

_GIB = 1 << 30


@dataclass(frozen=True)
class Plan:
    """How engines are compiled.

    Attributes:
        family: the library.
        capabilities: GPUs to compile for, "8.9"; empty is the GPU at hand.
        profile: sizes of free axes by letter.
        workspace: bytes of GPU memory that kernels may use as scratch; None is the library's.
        optimization_level: 0 to 5; None is the library's.
        hardware_compatibility: other architectures the engines shall run on.
        version_compatible: later versions shall run them.
        strip: leave the weights out of the engines; a LoRA or gamma can then change without a
            rebuild (`engines.refit`).
        timing_cache: file of measured kernels, read and written; None keeps none.
    """

    family: EngineFamily = "tensorrt"
    capabilities: tuple[str, ...] = ()
    profile: Mapping[str, AxisRange] = field(default_factory=lambda: dict(PROFILE))
    workspace: int | None = None
    optimization_level: int | None = None
    hardware_compatibility: HardwareCompatibility = "none"
    version_compatible: bool = False
    strip: bool = False
    timing_cache: Path | None = None


def family_named(name: str) -> EngineFamily:
    """The family of that name.

    Raises:
        InputError: there is none.
    """
    for family in ENGINE_FAMILIES:
        if name == family:
            return family
    raise InputError(f"--engine {name}: choose {' or '.join(ENGINE_FAMILIES)}")


def profile_of(asked: Sequence[str]) -> dict[str, AxisRange]:
    """The default profile, with the axes given as AXIS=MIN:OPT:MAX in place of its own.

    Raises:
        InputError: not such a text, an axis that no graph has, or sizes out of order.
    """
    profile = dict(PROFILE)
    for text in asked:
        match = re.fullmatch(r"([A-Z])=(\d{1,6}):(\d{1,6}):(\d{1,6})", text)
        if match is None:
            raise InputError(f"--profile {text}: pass AXIS=MIN:OPT:MAX, as in B=1:1:64")
        axis, low, usual, high = match[1], *map(int, match.groups()[1:])
        if axis not in profile:
            raise InputError(f"--profile {text}: the axes are {', '.join(profile)}")
        if not 1 <= low <= usual <= high:
            raise InputError(f"--profile {text}: needs 1 <= MIN <= OPT <= MAX")
        profile[axis] = AxisRange(low, usual, high)
    return profile


def workspace_bytes(gib: float | None) -> int | None:
    """Bytes of a --workspace in GiB.

    Raises:
        InputError: not a positive number.
    """
    if gib is None:
        return None
    if not 0 < gib < float("inf"):
        raise InputError(f"--workspace {gib:g}: pass a positive number of GiB")
    return int(gib * _GIB)


def check(plan: Plan, api: Api) -> None:
    """Refuse what the library cannot do.

    Raises:
        InputError: an option that this family has not, or a capability that it does not know.
    """
    family = api.family
    compatible = plan.hardware_compatibility != "none"
    for option, asked, offered in (
        ("--hardware-compatibility", compatible, family.hardware_compatible),
        ("--version-compatible", plan.version_compatible, family.version_compatible),
        ("--timing-cache", plan.timing_cache is not None, family.timing_cache),
        ("--compute-capability", bool(plan.capabilities), family.builds_without_gpu),
    ):
        if asked and not offered:
            raise InputError(f"{option}: {family.name} has no such thing; leave it out")
    unknown = [name for name in plan.capabilities if name not in api.capabilities]
    if unknown:
        raise InputError(
            f"--compute-capability {unknown[0]}: {family.name} {api.version} compiles for "
            f"{', '.join(api.capabilities)}"
        )
    if plan.strip and plan.capabilities:
        raise InputError(
            "--strip-weights: refittable engines are compiled on the GPU that they are for; "
            "leave out --compute-capability there"
        )


def gpu_at_hand(plan: Plan, api: Api) -> Gpu | None:
    """The GPU that engines are compiled on and for; None where GPUs were named.

    Raises:
        BackendError: there is none, with what can be done without.
    """
    if plan.capabilities:
        return None
    try:
        return Device().gpu
    except BackendError as error:
        if api.family.builds_without_gpu and not plan.strip:
            instead = f"name them by --compute-capability, of {', '.join(api.capabilities)}"
        else:
            instead = (
                "run this command on the machine that the engines are for, or compile for RTX GPUs "
                "anywhere with --engine tensorrt-rtx --compute-capability 8.9"
            )
        raise BackendError(
            f"{api.family.name} finds no GPU to compile for ({error}); {instead}"
        ) from error

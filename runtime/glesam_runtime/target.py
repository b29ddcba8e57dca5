"""Define the types of `target` in manifest.json, which says what engine the graphs are for."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from glesam_runtime.checked_text import Sha256, whole

EngineFamily = Literal["tensorrt", "tensorrt-rtx"]
ENGINE_FAMILIES: tuple[EngineFamily, ...] = get_args(EngineFamily)
Capability = Annotated[str, whole(r"[0-9]{1,2}\.[0-9]")]
"""A GPU's compute capability, such as "8.9"."""
HardwareCompatibility = Literal["none", "same_compute_capability", "ampere_plus"]


class AxisRange(msgspec.Struct, frozen=True):
    """The sizes of a dynamic axis that an engine accepts."""

    min: Annotated[int, Meta(ge=1)]
    opt: Annotated[int, Meta(ge=1)]
    """The size that the kernels were chosen for."""
    max: Annotated[int, Meta(ge=1)]

    def __str__(self) -> str:
        """Return min:opt:max, as in a command line option."""
        return f"{self.min}:{self.opt}:{self.max}"


class EngineBuild(msgspec.Struct, frozen=True):
    """How engines were compiled, which decides where they run.

    A reader uses `version`, `system`, `compute_capabilities`, `hardware_compatibility`,
    `version_compatible` and `stripped`. The other fields are informative.
    """

    version: str
    """The version of the engine's library. Engines run on this version only or, if
    `version_compatible`, also on later ones."""
    system: str
    """The operating system and processor, such as "linux-x86_64". Engines run on no other."""
    compute_capabilities: tuple[Capability, ...]
    """The GPUs that the engines run on. With `hardware_compatibility` they also run on others."""
    source: Sha256
    """The SHA-256 of manifest.json of the ONNX bundle that the engines were compiled from."""
    precision_seen_in: Literal["engine", "network"]
    """Where each stage's precision was verified. engine: in the engine, by its inspector.
    network: in the strongly typed network, because no GPU could load the engine."""
    gpu: str | None = None
    """The GPU on which kernels were timed. None for an engine that was built without a GPU."""
    hardware_compatibility: HardwareCompatibility = "none"
    version_compatible: bool = False
    refittable: bool = False
    """Whether weights can be replaced without a rebuild."""
    stripped: bool = False
    """Whether the engines hold no weights. Then each stage's `weights` is the ONNX graph that
    supplies them."""
    optimization_level: int | None = None
    """0 to 5. None is the library's default."""
    timing_cache: Sha256 | None = None
    """The SHA-256 of the timing cache that was used."""
    changes: tuple[str, ...] = ()
    """Rewrites of the ONNX bundle's graphs before compilation. They change form and no value."""


class Target(msgspec.Struct, frozen=True):
    """The engine that the graphs are written for. `opset` is informative."""

    engine: Literal["onnx", "tensorrt", "tensorrt-rtx"]
    opset: int
    """The opset of the ONNX graphs, or of the graphs that the engines were compiled from."""
    batch: Annotated[int, Meta(ge=1)] | Literal["dynamic"]
    """N, the number of images per call of encoder and enhancer."""
    build: EngineBuild | None = None
    """How the engines were compiled. None for ONNX graphs."""

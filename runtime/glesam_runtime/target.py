"""What the graphs of a bundle are written for: any ONNX engine, or one TensorRT on some GPUs."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

EngineFamily = Literal["tensorrt", "tensorrt-rtx"]
ENGINE_FAMILIES: tuple[EngineFamily, ...] = get_args(EngineFamily)
Capability = Annotated[str, Meta(pattern=r"^[0-9]{1,2}\.[0-9]$")]
"""A GPU's compute capability, "8.9"."""
HardwareCompatibility = Literal["none", "same_compute_capability", "ampere_plus"]


class AxisRange(msgspec.Struct, frozen=True):
    """Sizes of a free axis that an engine was built for."""

    min: Annotated[int, Meta(ge=1)]
    opt: Annotated[int, Meta(ge=1)]
    """What the kernels were chosen for."""
    max: Annotated[int, Meta(ge=1)]

    def __str__(self) -> str:
        """min:opt:max, as options spell it."""
        return f"{self.min}:{self.opt}:{self.max}"


class EngineBuild(msgspec.Struct, frozen=True):
    """How engines were compiled, and so where they run."""

    version: str
    """Of the engine family's library. An engine runs on this version alone, or, where
    `version_compatible`, on later ones too."""
    system: str
    """Operating system and processor, "linux-x86_64": engines do not cross."""
    compute_capabilities: tuple[Capability, ...]
    """GPUs they run on; with `hardware_compatibility` also others."""
    source: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of manifest.json of the ONNX bundle they were compiled from."""
    precision_seen_in: Literal["engine", "network"]
    """Where each stage's precision was found: in the engine, by its inspector, or, where no GPU
    could load it, in the strongly typed network it was compiled from."""
    gpu: str | None = None
    """The GPU that kernels were timed on; None for an engine built without one."""
    hardware_compatibility: HardwareCompatibility = "none"
    version_compatible: bool = False
    refittable: bool = False
    """Weights can be replaced without a rebuild."""
    stripped: bool = False
    """The engines hold no weights: each stage's `data` is the ONNX graph to take them from."""
    optimization_level: int | None = None
    """0 to 5; None is the library's default."""
    timing_cache: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the timing cache that was used."""
    changes: tuple[str, ...] = ()
    """In what the graphs differ in form, and in no value, from those of the ONNX bundle."""


class Target(msgspec.Struct, frozen=True):
    """The engine the graphs are written for."""

    engine: Literal["onnx", "tensorrt", "tensorrt-rtx"]
    opset: int
    """Of the ONNX graphs, or of those that the engines were compiled from."""
    batch: Annotated[int, Meta(ge=1)] | Literal["dynamic"]
    """N of encoder and enhancer."""
    build: EngineBuild | None = None
    """Of engines."""

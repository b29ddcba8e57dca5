"""Declare each option of an engine once, for Python and for every command line.

To add an option, add a field to `EngineOptions` and its name to the `OPTIONS` of each backend that
supports it. The other backends then refuse it, and every command that runs an engine offers it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from glesam_runtime.backends import BACKENDS
from glesam_runtime.errors import BackendError
from glesam_runtime.option_groups import option

PANEL = "Engine"
"""Heading of these options in --help."""


@dataclass(frozen=True)
class EngineOptions:
    """The options of an engine. A backend refuses an option that it does not support.

    Attributes:
        precision: what the engine computes in, "fp32", "bf16" or "fp16"; None follows the graphs.
        threads: CPU threads; None leaves the number to the engine.
        streams: how many runs the engine accepts at the same time, each from a thread of its own.
            They share the CPU threads: more streams raise both throughput and latency.
        cache: folder for compiled graphs, which makes the next load faster; None keeps nothing.
        low_memory: hold the encoder or the enhancer in memory, never both; every image loads them
            again.
        cuda_graphs: replay the encoder and the enhancer as one CUDA graph each.
    """

    precision: str | None = field(
        default=None,
        metadata=option(
            "Compute in fp32, bf16 or fp16 instead of the precision of the graphs (openvino only).",
            panel=PANEL,
        ),
    )
    threads: int | None = field(
        default=None,
        metadata=option(
            "Number of CPU threads. Default: the engine decides.",
            panel=PANEL,
            minimum=1,
            maximum=4096,
        ),
    )
    streams: int = field(
        default=1,
        metadata=option(
            "Number of images inferred at the same time. More streams raise throughput and "
            "latency.",
            panel=PANEL,
            minimum=1,
            maximum=1024,
        ),
    )
    cache: Path | None = field(
        default=None,
        metadata=option(
            "Folder for compiled graphs, which makes the next start faster. Default: no cache.",
            panel=PANEL,
            metavar="DIR",
        ),
    )
    low_memory: bool = field(
        default=False,
        metadata=option(
            "Hold the encoder or the enhancer in memory, never both. Every image then loads them "
            "again, which takes seconds for a large model.",
            panel=PANEL,
        ),
    )
    cuda_graphs: bool = field(
        default=False,
        metadata=option(
            "Replay the encoder and the enhancer as CUDA graphs (compiled engines only).",
            panel=PANEL,
        ),
    )


DEVICE = option(
    "Device: cpu, cuda or cuda:N. Default: the GPU for compiled engines; for ONNX bundles the "
    "CPU, or a GPU if the engine is selected automatically.",
    panel=PANEL,
)
"""The option for the device."""


@dataclass(frozen=True)
class DeviceOption:
    """The device alone, for a command that chooses the backend itself."""

    device: str | None = field(
        default=None,
        metadata=option(
            "Device: cpu, cuda or cuda:N. Default: a GPU if one can be used, else the CPU.",
            panel=PANEL,
        ),
    )


@dataclass(frozen=True, init=False, eq=False, repr=False)
class _BackendAndDevice:
    backend: str = field(
        default="auto",
        metadata=option(
            "Inference engine: auto (the fastest one installed that stays within the bundle's "
            f"accuracy limits), {', '.join(BACKENDS)}.",
            panel=PANEL,
        ),
    )
    device: str | None = field(default=None, metadata=DEVICE)


@dataclass(frozen=True)
class RequestedEngine(EngineOptions, _BackendAndDevice):
    """The engine that a command line asks for: backend, device and `EngineOptions`.

    `option_groups.expand_groups` makes the options of a command from it.
    """

    def check_backend(self) -> None:
        """Refuse an unknown backend, before a bundle is read.

        Raises:
            BackendError: the backend is not known.
        """
        known = ["auto", *BACKENDS]
        if self.backend not in known:
            raise BackendError(
                f"backend {self.backend!r} is not known; known are {', '.join(known)}"
            )

    def options(self) -> EngineOptions:
        """Return how the engine is to run, without backend and device."""
        return EngineOptions(**{f.name: getattr(self, f.name) for f in fields(EngineOptions)})


def changed_options(options: EngineOptions) -> list[str]:
    """Return the names of the options whose value is not the default."""
    return [f.name for f in fields(EngineOptions) if getattr(options, f.name) != f.default]

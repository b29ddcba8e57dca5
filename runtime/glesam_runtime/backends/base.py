"""What an inference engine is to the rest of the runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pathlib import Path

    from glesam_runtime.manifest import StageName


class DeviceTensor(Protocol):
    """A float32 tensor where an engine left it; only that engine reads it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""


Value: TypeAlias = NDArray[np.float32] | DeviceTensor
"""A tensor on the host, or one that an engine returned."""


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is to run; what a backend has no such thing for is an error.

    Attributes:
        precision: what it computes in, "fp32", "bf16" or "fp16"; None is what the graphs say.
        threads: of the CPU; None is as many as the engine thinks good.
        streams: how many runs are on their way at a time, each from a thread of its own. They
            share the threads: more of them finish more runs in all, each of them later.
        cache: a folder for what compiling a graph yields, so that the next load is faster.
        cuda_graphs: replay encoder and enhancer as one CUDA graph each.
    """

    precision: str | None = None
    threads: int | None = None
    streams: int = 1
    cache: Path | None = None
    cuda_graphs: bool = False


class Engine(Protocol):
    """Loaded graphs of a bundle. One call at a time: a further thread takes a `share` of it."""

    @property
    def name(self) -> str:
        """The backend's name, as given to `load_engine`."""

    @property
    def device(self) -> str:
        """Where it really runs: "cpu", "cuda:0"."""

    def describe(self) -> dict[str, str]:
        """Engine, version, the provider that really runs, device, and precision where it says."""

    def run(self, stage: StageName, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run one graph.

        Args:
            stage: one of those loaded.
            inputs: every input by its name in the manifest.

        Returns:
            Every output by name, left where the engine computed it.

        Raises:
            BackendError: the stage is not loaded, or the engine failed.
        """

    def to_host(self, value: Value) -> NDArray[np.float32]:
        """The values as a numpy array."""

    def share(self) -> Engine:
        """An engine on the same loaded graphs, for another thread.

        Values that one of them returned may be given to the other.

        Raises:
            BackendError: this engine does one thing at a time.
        """

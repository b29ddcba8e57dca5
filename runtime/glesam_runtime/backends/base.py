"""Define the interface of an engine, and check that a graph has the manifest's interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from glesam_runtime.errors import BackendError

if TYPE_CHECKING:
    from pathlib import Path

    from glesam_runtime.manifest import StageName, TensorSpec


class DeviceTensor(Protocol):
    """A float32 tensor on the device of the engine that returned it; only that engine reads it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the dimensions."""


Value: TypeAlias = NDArray[np.float32] | DeviceTensor
"""A float32 tensor on the host, or one that an engine returned."""


class Engine(Protocol):
    """The loaded graphs of a bundle.

    An engine accepts one call at a time. Each further thread calls a `share` of it.
    """

    @property
    def name(self) -> str:
        """Return the backend's name, as given to `load_engine`."""

    @property
    def device(self) -> str:
        """Return the device that the engine runs on, such as "cpu" or "cuda:0"."""

    def describe(self) -> dict[str, str]:
        """Return engine, version, provider and device in use, and the precision where known."""

    def run(self, stage: StageName, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run one graph.

        Args:
            stage: one of the loaded stages.
            inputs: every input by its name in the manifest.

        Returns:
            Every output by its name, on the device that computed it.

        Raises:
            BackendError: the stage is not loaded, or the engine failed.
        """

    def to_host(self, value: Value) -> NDArray[np.float32]:
        """Return a tensor's values as a float32 array on the host.

        Raises:
            BackendError: the tensor belongs to another engine.
        """

    def share(self) -> Engine:
        """Return an engine on the same loaded graphs, for another thread.

        Each of the two accepts tensors that the other returned.

        Raises:
            BackendError: the engine cannot be shared.
        """


@dataclass(frozen=True)
class ForwardingEngine:
    """An engine that leaves everything to another; a subclass changes how graphs are run."""

    engine: Engine

    @property
    def name(self) -> str:
        """Return the backend's name."""
        return self.engine.name

    @property
    def device(self) -> str:
        """Return the device that the engine runs on."""
        return self.engine.device

    def describe(self) -> dict[str, str]:
        """Return the engine's description."""
        return self.engine.describe()

    def run(self, stage: StageName, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run one graph.

        Raises:
            BackendError: the engine failed.
        """
        return self.engine.run(stage, inputs)

    def to_host(self, value: Value) -> NDArray[np.float32]:
        """Return a tensor's values as a float32 array on the host."""
        return self.engine.to_host(value)

    def share(self) -> Engine:
        """Return an engine of the same kind on a share of the other engine's graphs."""
        return replace(self, engine=self.engine.share())


@dataclass(frozen=True)
class FoundTensor:
    """An input or output as an inference library reports it."""

    name: str
    dtype: str
    """The library's own name of the type."""
    is_float32: bool
    shape: tuple[int | None, ...]
    """None is an axis of any size."""


def check_interface(
    where: Path | str,
    kind: str,
    found: Sequence[FoundTensor],
    declared: Sequence[TensorSpec],
    *,
    exact: bool = False,
) -> None:
    """Refuse a graph whose inputs or outputs differ from the manifest's.

    Args:
        where: the graph's file, for the message.
        kind: what is compared, "inputs" or "outputs", for the message.
        found: the tensors of the graph.
        declared: the tensors of the manifest.
        exact: True also refuses an axis that the manifest fixes and the graph leaves open. That is
            usual in outputs of ONNX graphs, because shape inference does not fix every axis.

    Raises:
        BackendError: a name, a dtype, a rank or the size of an axis differs.
    """
    specs = {spec.name: spec for spec in declared}
    if sorted(tensor.name for tensor in found) != sorted(specs):
        have = ", ".join(tensor.name for tensor in found)
        raise BackendError(f"{where}: {kind} are {have}, the manifest says {', '.join(specs)}")
    for tensor in found:
        want = specs[tensor.name].shape
        if not (tensor.is_float32 and _fits(tensor.shape, want, exact)):
            shape = ", ".join("?" if size is None else str(size) for size in tensor.shape)
            raise BackendError(
                f"{where}: {tensor.name} is {tensor.dtype} [{shape}], the manifest says float32 "
                f"{list(want)}; export or compile the bundle again"
            )


def _fits(found: Sequence[int | None], declared: Sequence[int | str], exact: bool) -> bool:
    """Return whether every axis fits; a name in `declared` is an axis of any size."""
    if len(found) != len(declared):
        return False
    return all(
        (isinstance(want, str) or not exact) if have is None else have == want
        for have, want in zip(found, declared, strict=True)
    )

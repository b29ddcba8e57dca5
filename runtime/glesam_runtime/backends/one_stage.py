"""Hold either the encoder or the enhancer in memory, and load the other when it is run.

The peak is then that of the larger stage instead of both. Each image pays for it by loading the two
again, so this is for machines that cannot hold a model otherwise (`--low-memory`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime.errors import BackendError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.backends.base import Engine, Value
    from glesam_runtime.manifest import StageName


@dataclass
class _Slot:
    """The place of the stage that is loaded now. Shares of an engine use it in turns."""

    load: Callable[[StageName], Engine]
    stage: StageName | None = None
    engine: Engine | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def holding(self, stage: StageName) -> Engine:
        """Return the engine of a stage; the one before it is freed first."""
        if self.engine is None or self.stage != stage:
            self.engine = None
            self.engine, self.stage = self.load(stage), stage
        return self.engine


@dataclass(frozen=True)
class OneStageEngine:
    """An engine that keeps the last stage, and loads the others when they are run, one at a time.

    The last stage is the decoder, which is small: further prompts on an image load nothing. All
    tensors are on the host, because they outlive the engine of their stage.
    """

    stages: tuple[StageName, ...]
    last: Engine
    slot: _Slot

    @property
    def name(self) -> str:
        """Return the backend's name."""
        return self.last.name

    @property
    def device(self) -> str:
        """Return the device that the engine runs on."""
        return self.last.device

    def describe(self) -> dict[str, str]:
        """Return the description of the engine of one stage."""
        return self.last.describe()

    def run(self, stage: StageName, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run one graph, and load it first if it is not in memory.

        Raises:
            BackendError: the stage was not asked for or cannot be loaded, or the engine failed.
        """
        if stage not in self.stages:
            raise BackendError(f"the {stage} was not loaded")
        if stage == self.stages[-1]:
            return self._run(self.last, stage, inputs)
        with self.slot.lock:
            return self._run(self.slot.holding(stage), stage, inputs)

    def _run(
        self, engine: Engine, stage: StageName, inputs: Mapping[str, Value]
    ) -> dict[str, Value]:
        given = {name: self.to_host(value) for name, value in inputs.items()}
        outputs = engine.run(stage, given)
        # A copy: a tensor may be a view of memory that is freed with its engine.
        return {name: np.array(engine.to_host(value)) for name, value in outputs.items()}

    def to_host(self, value: Value) -> NDArray[np.float32]:
        """Return a tensor's values, which are on the host.

        Raises:
            BackendError: the tensor belongs to another engine.
        """
        if isinstance(value, np.ndarray):
            return value
        raise BackendError(f"a tensor of another engine: {type(value).__name__}")

    def share(self) -> OneStageEngine:
        """Return an engine for another thread; both wait for each other's encoder and enhancer."""
        return OneStageEngine(self.stages, self.last.share(), self.slot)


def load_one_stage(
    stages: Sequence[StageName], load: Callable[[StageName], Engine]
) -> OneStageEngine:
    """Load the last of the stages, and the others when they are run.

    Args:
        stages: the stages in the order of the chain.
        load: loads the graph of one stage.

    Raises:
        BackendError: the last stage cannot be loaded.
    """
    return OneStageEngine(tuple(stages), load(stages[-1]), _Slot(load))

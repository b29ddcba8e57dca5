"""A bundle on one of the runtime's engines, as a contender. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glesam_benchmark.inputs import Prompt
from glesam_runtime import chain
from glesam_runtime.backends.base import Engine
from glesam_runtime.bundle import Bundle
from glesam_runtime.compare import coarsest
from glesam_runtime.engine_options import RequestedEngine
from glesam_runtime.engine_selection import select_engine
from glesam_runtime.manifest import STAGES


@dataclass(frozen=True)
class BundleChain:
    """The runtime's own chain."""

    bundle: Bundle
    loaded: Engine

    @property
    def engine(self) -> Mapping[str, str]:
        """As the engine describes itself."""
        return self.loaded.describe()

    @property
    def precision(self) -> str:
        """What the engine says, or what the graphs were typed in."""
        typed = coarsest([self.bundle.manifest.stages[stage].precision for stage in STAGES])
        if typed in ("int8", "fp8"):  # an engine tells what the rest of such a graph is in
            return typed
        return self.loaded.describe().get("precision", typed)

    def encode(self, image: NDArray[np.float32]) -> chain.Features:
        """Run the encoder."""
        return self._done(chain.encode(self.loaded, self.bundle.manifest, image))

    def enhance(self, features: chain.Features) -> chain.Features:
        """Run the enhancer."""
        return self._done(chain.enhance(self.loaded, self.bundle.manifest, features))

    def decode(self, features: chain.Features, prompt: Prompt) -> NDArray[np.float32]:
        """Run the decoder."""
        return chain.decode(self.loaded, features, prompt)[0]

    def _done(self, features: chain.Features) -> chain.Features:
        """Wait for a GPU, by taking its result to the host; a CPU has waited."""
        if self.loaded.device != "cpu":
            self.loaded.to_host(features[chain.EMBEDDINGS])
        return features


def load(bundle: Bundle, choice: RequestedEngine) -> BundleChain:
    """Load a bundle as glesam-run does.

    Raises:
        BackendError: the engine is missing or cannot run it.
    """
    chosen = select_engine(bundle, choice.backend, choice.device, STAGES, choice.options())
    return BundleChain(bundle, chosen.engine)

"""Run a bundle on one of the runtime's engines, as a contender; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glesam_benchmark.timing import Prompt
from glesam_runtime import chain
from glesam_runtime.backends.base import Engine
from glesam_runtime.bundle import Bundle
from glesam_runtime.compare import coarsest
from glesam_runtime.engine_options import RequestedEngine
from glesam_runtime.engine_selection import select_engine
from glesam_runtime.manifest import STAGES


@dataclass(frozen=True)
class BundleChain:
    """Run the three stages with the runtime's own chain."""

    bundle: Bundle
    loaded: Engine

    @property
    def engine(self) -> Mapping[str, str]:
        """Return the engine's description of itself."""
        return self.loaded.describe()

    @property
    def precision(self) -> str:
        """Return the precision that the engine reports, or the one that the graphs are typed in."""
        typed = coarsest([self.bundle.manifest.stages[stage].precision for stage in STAGES])
        if typed in ("int8", "fp8"):  # the engine reports the precision of the rest of the graph
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
        """Wait for a GPU by copying its result to the host; a CPU call has already finished."""
        if self.loaded.device != "cpu":
            self.loaded.to_host(features[chain.EMBEDDINGS])
        return features


def load_bundle_chain(bundle: Bundle, choice: RequestedEngine) -> BundleChain:
    """Load a bundle the way glesam-run does.

    Raises:
        BackendError: the engine is missing or cannot run the bundle.
    """
    chosen = select_engine(bundle, choice.backend, choice.device, STAGES, choice.options())
    return BundleChain(bundle, chosen.engine)

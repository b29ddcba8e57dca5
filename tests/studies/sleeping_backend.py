"""A backend that sleeps instead of computing, to measure what is around an engine.

`register` enters it into the table of backends, as a module of `glesam_runtime.backends` does.
Workers of Ray call it before their first task. GLESAM_SLEEP is the seconds that the encoder takes
for an image, the enhancer included.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glesam_runtime.backends import BACKENDS, Backend
from glesam_runtime.backends.base import Value
from glesam_runtime.bundle import Bundle, builtin_bundle_path
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.manifest import Manifest, StageName

OPTIONS = frozenset({"threads", "streams"})
NAME = "sleeping"
SECONDS = "GLESAM_SLEEP"


def register() -> None:
    """Enter the backend into the table of this process."""
    BACKENDS[NAME] = Backend(NAME, requires=("numpy",), compiled=False, devices=("cpu",), rank=9)
    sys.modules[f"glesam_runtime.backends.{NAME}"] = sys.modules[__name__]


def load(
    bundle: Bundle, device: str | None, stages: Sequence[StageName], options: EngineOptions
) -> SleepingEngine:
    """Return an engine for a bundle, whose graphs are not read."""
    return SleepingEngine(bundle.manifest, float(os.environ[SECONDS]))


@dataclass(frozen=True)
class SleepingEngine:
    """An engine whose encoder takes a fixed time, and whose masks are a fixed pattern."""

    manifest: Manifest
    seconds: float
    name: str = NAME
    device: str = "cpu"

    def describe(self) -> dict[str, str]:
        """Return what it is."""
        return {"engine": self.name, "version": "1", "provider": "none", "device": self.device}

    def run(self, stage: StageName, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Sleep, and return tensors of the contract's shapes."""
        if stage == "encoder":
            time.sleep(self.seconds)
        prompts = inputs["point_coords"].shape[0] if stage == "decoder" else 1
        outputs: dict[str, Value] = {}
        for spec in self.manifest.stages[stage].outputs:
            shape = [prompts if isinstance(side, str) else side for side in spec.shape]
            values = np.full(shape, -8, np.float32)
            if spec.name == "low_res_masks":
                values[..., 2:9, 3:12] = 8
            outputs[spec.name] = values
        return outputs

    def to_host(self, value: Value) -> NDArray[np.float32]:
        """Return the array itself."""
        assert isinstance(value, np.ndarray)
        return value

    def share(self) -> SleepingEngine:
        """Return this engine: it has no state."""
        return self


def write_bundle(folder: Path, side: int) -> None:
    """Write the built-in bundle with a manifest of another image size.

    With a small side, little work is left beside the engine's sleep.
    """
    shutil.copytree(builtin_bundle_path(), folder)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    was = manifest["preprocessing"]["image_size"]
    manifest["preprocessing"]["image_size"] = side
    for stage in manifest["stages"].values():
        for spec in (*stage["inputs"], *stage["outputs"]):
            factors = {was: side, was // 4: side // 4, was // 16: side // 16}
            if len(spec["shape"]) == 4:
                spec["shape"][2:] = [factors[size] for size in spec["shape"][2:]]
    path.write_text(json.dumps(manifest))

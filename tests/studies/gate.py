"""Measure what a gate saves and costs on nano, and write docs/gate.md.

Usage: python -m tests.studies.gate measure FOLDER [SEED ...]
       python -m tests.studies.gate page FOLDER PAGE

`measure` keeps a file of each picture in FOLDER, so it can be interrupted, and several processes
can share the work. For each seed a gate learns from the scenes of the other seeds and is tested on
its own, which it has not seen, and on scikit-image's coins.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from glesam_calibration.gate_cases import Pictures, measure_cases
from glesam_evaluation.conditions import CONDITIONS
from glesam_evaluation.datasets import SceneDataset
from glesam_evaluation.segmenters import BundleStages
from glesam_runtime.bundle import open_bundle
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.enhancement_gate import GateTarget
from glesam_training.nano.coins import Coins

SEEDS = (0, 1, 2)
SCENES, FIRST = 40, 5_000_000
"""Scenes of each seed, and the first scene of seed 0. Nothing else uses these."""
TARGETS: tuple[GateTarget, ...] = ("latent", "agreement", "iou")
COINS = "coins"


def pictures_of(seed: int) -> Iterator[tuple[str, Pictures]]:
    """Yield the name of each picture of a seed, and the picture; the coins come first."""
    yield COINS, Pictures(Coins(), 1)
    for number in range(FIRST + 1000 * seed, FIRST + 1000 * seed + SCENES):
        yield f"scene-{number}", Pictures(SceneDataset(1, number), 1)


def measure(folder: Path, seeds: Sequence[int]) -> None:
    """Measure the pictures that no process has measured or works on."""
    stages = BundleStages(open_bundle(), "openvino", options=EngineOptions(threads=1))
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for name, pictures in pictures_of(seed):
            file, claim = folder / f"{seed}-{name}.npz", folder / f"{seed}-{name}.claim"
            try:
                os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            try:
                found = measure_cases(
                    stages, pictures, CONDITIONS, TARGETS, seed, lambda done, total: None
                )
                arrays = {}
                for target, cases in found.items():
                    arrays[f"{target}/scores"], arrays[f"{target}/kinds"] = (
                        cases.scores,
                        cases.kinds,
                    )
                arrays["features"] = found["iou"].features
                np.savez(file.with_suffix(".partial.npz"), **arrays)
                file.with_suffix(".partial.npz").rename(file)
            finally:
                if not file.exists():
                    claim.unlink()


if __name__ == "__main__":
    if sys.argv[1] == "measure":
        measure(Path(sys.argv[2]), [int(word) for word in sys.argv[3:]] or SEEDS)

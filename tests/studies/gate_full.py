"""Measure what a gate saves at full size, where half of the pictures are clear.

Usage: python -m tests.studies.gate_full BUNDLE [PICTURES]

BUNDLE may have random weights: the gate gets random weights and the threshold that takes half of
the pictures, since only time is measured. Each picture is set by `always` and `auto` in turns.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from glesam_evaluation.conditions import show
from glesam_evaluation.datasets import SceneDataset
from glesam_runtime import GleSamPredictor, manifest_file
from glesam_runtime.bundle import Bundle, open_bundle
from glesam_runtime.enhancement_gate import CHANNELS, EnhancementGate, GateTraining
from glesam_runtime.enhancing import Enhancing


def with_gate(bundle: Bundle, folder: Path, threshold: float) -> Bundle:
    """Return a bundle of the same files, whose manifest has a random gate."""
    folder.mkdir()
    for file in bundle.path.iterdir():
        if file.name != "manifest.json":
            os.link(file, folder / file.name)
    gate = EnhancementGate(
        encoder=bundle.stage_sha256("encoder"),
        enhancer=bundle.stage_sha256("enhancer"),
        features="channel_moments",
        weights=tuple(map(float, np.random.default_rng(0).normal(size=2 * CHANNELS))),
        bias=0.0,
        threshold=threshold,
        target="latent",
        training=GateTraining("none", 1, 1, ("clear",), 0, 0.0, 0.5, ()),
    )
    manifest = msgspec.structs.replace(bundle.manifest, enhancement_gate=gate)
    (folder / "manifest.json").write_bytes(manifest_file.dump(manifest))
    return open_bundle(folder)


def main() -> None:
    """Measure, and print seconds and their ratio."""
    bundle, count = open_bundle(Path(sys.argv[1])), int(sys.argv[2]) if len(sys.argv) > 2 else 8
    scenes = SceneDataset(count, 6_000_000)
    pictures = [
        show(scenes[number].image, "LQ-3" if number % 2 else "clear", 0, str(number))
        for number in range(count)
    ]
    with tempfile.TemporaryDirectory(dir=bundle.path.parent) as name:
        first = with_gate(bundle, Path(name) / "first", 0.0)
        predictor = GleSamPredictor(first, backend="openvino")
        estimates = []
        for picture in pictures:
            predictor.set_image(picture)
            estimates.append(predictor.estimate)
        half = with_gate(bundle, Path(name) / "half", float(np.median(estimates)))
        # The same loaded graphs for both modes, because two engines need twice the memory.
        modes = {"always": Enhancing.of(half, True), "auto": Enhancing.of(half, "auto")}
        seconds: dict[str, list[float]] = {mode: [] for mode in modes}
        gates, encoders, enhanced = [], [], 0
        for picture in pictures:
            for mode, enhancing in modes.items():
                predictor.enhancing = enhancing
                start = time.perf_counter()
                predictor.set_image(picture)
                seconds[mode].append(time.perf_counter() - start)
            gates.append(predictor.timings["gate"])
            encoders.append(predictor.timings["encoder"])
            enhanced += bool(predictor.enhanced)
    mean = {mode: statistics.mean(each) for mode, each in seconds.items()}
    print(f"{bundle.manifest.model.preset}, {count} pictures, {enhanced} enhanced by auto")
    print(f"always {mean['always']:.2f} s an image, auto {mean['auto']:.2f}, ratio", end=" ")
    print(f"{mean['auto'] / mean['always']:.3f}")
    gate, encoder = statistics.median(gates), statistics.median(encoders)
    print(
        f"gate {1e3 * gate:.3f} ms, {100 * gate / encoder:.4f} % of the encoder's {encoder:.2f} s"
    )


if __name__ == "__main__":
    main()

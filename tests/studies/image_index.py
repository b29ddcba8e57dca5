"""Compare prompts of several images in one decoder call with one image at a time.

Usage: python -m tests.studies.image_index [PRESET ...]

Each image has one prompt, as in a server with a queue. The decoders have random weights, and the
features are noise: only time counts here. Both ways take turns, in one process and one run.
Engines run on one thread and the times are processor times, which other processes change little.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from glesam_export import stages
from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_export.presets import sam_preset, unet_preset
from glesam_runtime.backends.onnxruntime import session_options
from glesam_runtime.backends.openvino import properties_of
from glesam_runtime.engine_libraries import openvino_core
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.machine import cpu_name

IMAGES = (2, 4, 8, 16)
ROUNDS = 7
Arrays = dict[str, np.ndarray]
Run = Callable[[Arrays], object]


def inputs_of(path: Path, images: int) -> Arrays:
    """Return features of `images` images, and one prompt of a point and its padding on each."""
    rng = np.random.default_rng(0)
    sizes = {"I": images, "B": images, "P": 2}
    made = {}
    for node in onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).get_inputs():
        shape = [sizes.get(axis, axis) for axis in node.shape]
        made[node.name] = rng.normal(size=shape).astype(np.float32)
    made["image_index"] = np.arange(images, dtype=np.float32)
    made["point_labels"] = np.tile(np.asarray([1, -1], np.float32), (images, 1))
    made["has_mask_input"] = np.zeros(1, np.float32)
    return made


def engines(path: Path) -> dict[str, Run]:
    """Return how to run a graph on each engine, in float32."""
    options = session_options(EngineOptions(threads=1))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    hint = properties_of(EngineOptions(threads=1), "fp32")
    request = openvino_core().compile_model(path, "CPU", hint).create_infer_request()
    return {
        "onnxruntime": lambda given: session.run(None, given),
        "openvino": lambda given: request.infer(given, share_inputs=True),
    }


def main(presets: list[str]) -> None:
    """Print a table for each preset."""
    print(f"{cpu_name()}; ms per prompt, median (least) of {ROUNDS} rounds")
    for preset in presets:
        checkpoint = RandomCheckpoint(0, sam_preset(preset), unet_preset("nano"), 5.0, 999)
        with tempfile.TemporaryDirectory() as folder:
            found = {}
            for indexed in (True, False):
                place = Path(folder) / str(indexed)
                place.mkdir()
                form = "decoder", "fp32", 1, place
                stage = stages.export_stage(checkpoint, *form, image_index=indexed)
                found[indexed] = place / stage.graph.file
            together, alone = engines(found[True]), engines(found[False])
            for engine, run in together.items():
                for images in IMAGES:
                    given = inputs_of(found[True], images)
                    _row(preset, engine, images, given, run, alone[engine])


def _row(preset: str, engine: str, images: int, given: Arrays, joint: Run, single: Run) -> None:
    features = [n for n in given if n == "image_embeddings" or n.startswith("high_res")]
    shared = [n for n in given if n not in ("has_mask_input", "image_index")]
    parts = [{n: given[n][i : i + 1] for n in shared} for i in range(images)]
    for part in parts:
        part["has_mask_input"] = given["has_mask_input"]

    def together() -> None:
        stacked = {n: np.concatenate([part[n] for part in parts]) for n in features}
        joint({**given, **stacked})

    def one_by_one() -> None:
        for part in parts:
            single(part)

    ways = {"one at a time": one_by_one, "together": together}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, call in ways.items():
            start = time.process_time()
            call()
            if turn:  # the first is a warm-up
                seconds[name].append(1e3 * (time.process_time() - start) / images)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    words = ", ".join(f"{n} {median[n]:.1f} ({min(v):.1f})" for n, v in seconds.items())
    print(
        f"{preset} {engine}, {images} images: {words}; "
        f"{median['one at a time'] / median['together']:.2f}x",
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1:] or ["nano", "sam_vit_b", "sam2.1_hiera_t"])

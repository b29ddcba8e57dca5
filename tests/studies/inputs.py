"""Measure what the two inputs of an export cost nano, which was trained with the input "sam".

Usage: python -m tests.studies.inputs [SCENES]

Prints a table of the mean IoU with the truth, and of the IoU with the masks of the released input.
The third input, "float", is the resize of a loader in the released code that nothing there uses:
float bilinear without antialiasing.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from glesam_evaluation import metrics
from glesam_evaluation.conditions import show
from glesam_evaluation.prompting import draw_prompts
from glesam_evaluation.scenes import make_scene
from glesam_evaluation.segmenters import BundleStages, SharedEncoder, StagedSegmenter
from glesam_export.families import family_of, with_input
from glesam_export.presets import sam_preset
from glesam_runtime.bundle import Bundle, open_bundle
from glesam_runtime.image import Geometry, geometry_of
from glesam_runtime.manifest import RELEASED_INPUT, FirstResize

SHAPES = {"1:1": (512, 512), "4:3": (480, 640), "16:9": (432, 768)}
"""Height and width of the images."""
CONDITIONS = ("clear", "LQ-3")
FIRST = 3_000_000
"""Seed of the first scene. No training, calibration or comparison uses these."""
MIN_AREA = 0.004
INPUTS = ("sam", "released", "float")


class FloatEncoder(SharedEncoder):
    """Squashes images in float, by bilinear interpolation without antialiasing."""

    def encode(self, image: npt.NDArray[np.uint8]) -> tuple[Any, Geometry]:
        """Return z_L and the geometry of an image; the same array again is not encoded again."""
        if self._encoded is None or image is not self._image:
            rules, size = self._stages.preprocessing, self._stages.preprocessing.image_size
            assert isinstance(rules.first_resize, FirstResize)
            tensor = torch.tensor(image, dtype=torch.float32).permute(2, 0, 1)[None]
            for side in (rules.first_resize.size, size):
                tensor = functional.interpolate(tensor, (side, side), mode="bilinear")
            mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (rules.mean, rules.std))
            encoded = self._stages.encode(((tensor - mean) / std).numpy())
            height, width = image.shape[:2]
            self._encoded = encoded, geometry_of(height, width, size, rules.resize)
            self._image = image
        return self._encoded


def with_released_input(bundle: Bundle) -> Bundle:
    """Return the built-in bundle with the rules of an export by `--input released`."""
    preset = with_input(sam_preset("nano"), "released")
    family = family_of(preset)
    manifest = msgspec.structs.replace(
        bundle.manifest,
        requires=(RELEASED_INPUT,),
        preprocessing=family.preprocessing(preset),
        postprocessing=family.postprocessing(preset),
    )
    return replace(bundle, manifest=manifest)


def main(scenes: int = 60) -> None:
    """Print the tables."""
    plain = open_bundle()
    sam = BundleStages(plain, "onnxruntime")
    released = BundleStages(with_released_input(plain), "onnxruntime")
    encoders = dict(
        zip(
            INPUTS,
            (SharedEncoder(sam), SharedEncoder(released), FloatEncoder(released)),
            strict=True,
        )
    )
    stages = dict(zip(INPUTS, (sam, released, released), strict=True))
    print(
        "| images | condition | enhancer | masks | sam | released | float | float with released |"
    )
    print("|---|---|---|---:|---:|---:|---:|---:|")
    for shape, (height, width) in SHAPES.items():
        figures: dict[tuple[str, bool], list[npt.NDArray[np.float64]]] = {}
        for seed in range(FIRST, FIRST + scenes):
            scene = make_scene(seed, height, width)
            truth = scene.masks[scene.masks.mean(axis=(1, 2)) >= MIN_AREA][:10]
            if not len(truth):
                continue
            name = f"scene-{seed}"
            drawn = draw_prompts(truth, list(range(len(truth))), "3-point", 0, name)
            for condition in CONDITIONS:
                shown = show(scene.image, condition, 0, name)
                for enhance in (False, True):
                    found = {}
                    for each in INPUTS:
                        one = StagedSegmenter(stages[each], enhance=enhance, encoder=encoders[each])
                        one.set_image(shown)
                        found[each] = one.segment(drawn.points, drawn.labels, drawn.boxes)
                    row = [metrics.iou(found[each], truth) for each in INPUTS]
                    row.append(metrics.iou(found["float"], found["released"]))
                    figures.setdefault((condition, enhance), []).append(np.stack(row, axis=1))
        for (condition, enhance), rows in figures.items():
            values = np.concatenate(rows)
            cells = " | ".join(f"{100 * value:.2f}" for value in values.mean(axis=0))
            word = "with" if enhance else "without"
            print(f"| {shape} | {condition} | {word} | {len(values)} | {cells} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

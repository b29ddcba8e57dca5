"""Prompts for images of which nothing is known: drawn in rectangles that stand for objects."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from glesam_evaluation.seeds import derive
from glesam_evaluation.prompting import draw_prompts
from glesam_runtime.image import Geometry
from glesam_runtime.manifest import Coordinates
from glesam_runtime.prompts import check_prompts, prompt_tensors

OBJECTS = 3
"""Prompted in each image."""
KINDS = ("1-point", "3-point", "box", "noise-box")

Tensors = dict[str, NDArray[np.float32]]


def made_up_objects(height: int, width: int, seed: int, name: str) -> NDArray[np.bool_]:
    """Rectangles anywhere in an image, from a tenth to all of a side long: bool [OBJECTS,H,W]."""
    rng = np.random.default_rng(derive(seed, name, "objects"))
    masks = np.zeros((OBJECTS, height, width), np.bool_)
    for mask in masks:
        spans = []
        for side in (height, width):
            length = max(1, int(side * rng.uniform(0.1, 1.0)))
            start = int(rng.integers(side - length + 1))
            spans.append(slice(start, start + length))
        mask[tuple(spans)] = True
    return masks


def prompt_calls(
    masks: NDArray[np.bool_], geometry: Geometry, rules: Coordinates, seed: int, name: str
) -> dict[str, Tensors]:
    """Decoder calls for the objects of an image: one a kind, the contract's prompt tensors.

    Args:
        masks: bool [K,H,W].
        geometry: the image's.
        rules: the manifest's.
        seed: decides where the prompts lie.
        name: the image's.
    """
    calls = {}
    for kind in KINDS:
        drawn = draw_prompts(masks, range(len(masks)), kind, seed, name)
        batch = check_prompts(geometry, drawn.points, drawn.labels, drawn.boxes)
        calls[kind] = prompt_tensors(batch, geometry, rules)
    refused = calls["3-point"]
    labels = refused["point_labels"].copy()
    labels[:, 2] = 0
    calls["background point"] = {**refused, "point_labels": labels}
    return calls


def upon_mask(call: Mapping[str, NDArray[np.float32]], logits: NDArray[np.float32]) -> Tensors:
    """A call once more, with an earlier answer's logits [B,1,S/4,S/4] as its mask prompt."""
    return {**call, "mask_input": logits, "has_mask_input": np.ones(1, np.float32)}

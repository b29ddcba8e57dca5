"""Makes the verification cases: clear and degraded images with prompts of every kind."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from glesam_evaluation.degrade import degrade
from glesam_evaluation.scenes import make_scene
from glesam_export.checkpoints import Checkpoint
from glesam_export.families import Preset, family_of
from glesam_runtime.image import Geometry, Preprocessed, preprocess
from glesam_runtime.image_file import read_image
from glesam_runtime.manifest import TimestepLevel
from glesam_runtime.prompts import check_prompts, prompt_tensors

Level = Literal["clear", "LQ-1", "LQ-2", "LQ-3"]
LEVELS: tuple[Level, ...] = ("clear", "LQ-1", "LQ-2", "LQ-3")
EXTREMES: tuple[Level, ...] = ("clear", "LQ-3")
"""The levels between which the others lie. Errors of a float32 graph come from rounding alone and
hardly differ between levels, so these two decide."""
SEED = 7
PROMPTS = 3
"""Number of objects that are prompted in each image."""


@dataclass(frozen=True)
class Case:
    """One image at one level of degradation, with its prompts.

    Attributes:
        name: unique name of the image, for the parity table.
        level: how the image was degraded.
        image: uint8 RGB [H, W, 3].
        prepared: the image as the encoder takes it.
        timestep: the level that the enhancer runs, in a checkpoint with several; None for one.
        prompts: one decoder call of each kind ("points", "boxes", and "masks": points with an
            earlier mask), as the contract's four prompt inputs.
    """

    name: str
    level: Level
    image: NDArray[np.uint8]
    prepared: Preprocessed
    prompts: Mapping[str, Mapping[str, NDArray[np.float32]]]
    timestep: TimestepLevel | None = None


def at_every_level(cases: Sequence[Case], checkpoint: Checkpoint) -> list[Case]:
    """Return the cases at each timestep of the checkpoint, those at its own timestep first."""
    levels = sorted(checkpoint.levels, key=lambda level: level.timestep != checkpoint.timestep)
    if not levels:
        return list(cases)
    return [replace(case, timestep=level) for level in levels for case in cases]


def make_cases(
    preset: Preset, images: Sequence[Path] = (), levels: Sequence[Level] = LEVELS
) -> list[Case]:
    """Make the verification set: each image at each level, with points, boxes and masks.

    Args:
        preset: its family gives the rules for images and prompts.
        images: the user's images. Without any, one procedural scene with known instances.
        levels: "clear" first, which the golden file is made of, then other levels.

    Raises:
        InputError: an image cannot be read.
    """
    if not images:
        height, width = preset.image_size * 3 // 4, preset.image_size
        scene = make_scene(SEED, height, width)
        largest = sorted(scene.masks, key=lambda mask: -int(mask.sum()))[:PROMPTS]
        points, boxes = _prompts_in_masks(largest)
        return [_case("scene", level, scene.image, points, boxes, preset) for level in levels]
    cases = []
    for index, path in enumerate(images):
        earlier = [other.name for other in images[:index]].count(path.name)
        # A file name may not be UTF-8. The manifest's JSON must be.
        name = os.fsencode(path.name).decode("utf-8", "backslashreplace")
        name += f" ({earlier + 1})" if earlier else ""
        image = read_image(path)
        points, boxes = _prompts_on_grid(*image.shape[:2])
        cases += [_case(name, level, image, points, boxes, preset) for level in levels]
    return cases


def _case(
    name: str,
    level: Level,
    image: NDArray[np.uint8],
    points: NDArray[np.float64],
    boxes: NDArray[np.float64],
    preset: Preset,
) -> Case:
    """Degrade and preprocess an image, and turn its prompts into the contract's tensors."""
    if level != "clear":
        image = degrade(image, LEVELS.index(level), SEED)
    family = family_of(preset)
    prepared = preprocess(image, family.preprocessing(preset))
    labels = np.ones(points.shape[:2])
    batches = {
        "points": check_prompts(prepared.geometry, point_coords=points, point_labels=labels),
        "boxes": check_prompts(prepared.geometry, boxes=boxes),
        "masks": check_prompts(
            prepared.geometry, points, labels, masks=_earlier_masks(boxes, prepared.geometry)
        ),
    }
    rules = family.coordinates(preset)
    tensors = {
        kind: prompt_tensors(batch, prepared.geometry, rules) for kind, batch in batches.items()
    }
    return Case(name, level, image, prepared, tensors)


def _prompts_in_masks(
    masks: Sequence[NDArray[np.bool_]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw three random points in each mask (paper, Sec. 4), and its box: [B, 3, 2] and [B, 4]."""
    rng = np.random.default_rng(SEED)
    points, boxes = [], []
    for mask in masks:
        ys, xs = np.nonzero(mask)
        chosen = rng.integers(len(xs), size=3)
        points.append(np.stack([xs[chosen], ys[chosen]], axis=1))
        boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    return np.asarray(points, np.float64), np.asarray(boxes, np.float64)


def _earlier_masks(boxes: NDArray[np.float64], geometry: Geometry) -> NDArray[np.float32]:
    """Make logits like those of an earlier prediction: a dome in each box, negative outside.

    Returns:
        [B, 1, S/4, S/4], from -10 to 10.
    """
    side = geometry.image_size // 4
    height, width = geometry.original
    new_height, new_width = geometry.resized
    scale = np.tile([new_width / width, new_height / height], 2) / 4
    x0, y0, x1, y1 = (boxes * scale).T[:, :, None]  # each [B, 1], in pixels of the mask
    centres = np.arange(side) + 0.5
    across = (2 * centres - x0 - x1) / (x1 - x0)  # [B, S/4], -1 and 1 at the box's edges
    down = (2 * centres - y0 - y1) / (y1 - y0)
    dome = 1 - down[:, :, None] ** 2 - across[:, None, :] ** 2
    logits: NDArray[np.float32] = np.clip(10 * dome, -10, 10)[:, None].astype(np.float32)
    return logits


def _prompts_on_grid(height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Place points and boxes along the diagonal of an image whose content is unknown."""
    size = np.asarray([width, height], np.float64)
    centres = np.asarray([0.25, 0.5, 0.75])[:, None] * size
    offsets = np.asarray([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1]]) * size
    points = np.floor(centres[:, None] + offsets)
    boxes = np.concatenate([centres - 0.2 * size, centres + 0.2 * size], axis=1)
    return points, boxes

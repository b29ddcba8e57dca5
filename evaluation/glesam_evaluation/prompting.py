"""Draw prompts from ground-truth masks, as the paper's evaluation and training do (Sec. 4).

A kind of prompt is 1 to 10 points, the mask's box, or that box with noise. Coordinates are (x, y)
in pixels of the image, and whole numbers name a pixel. A box runs from its first pixel to one past
its last (COCO's x + width), so that a box of one pixel has a size and `check_prompts` accepts it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glesam_evaluation.seeds import derive
from glesam_runtime.errors import InputError
from glesam_runtime.masks import mask_to_xywh

MAX_POINTS = 10
BOX, NOISE_BOX = "box", "noise-box"
_POINTS = re.compile(r"(\d{1,4})-points?", re.ASCII)


@dataclass(frozen=True, eq=False)
class Prompts:
    """Prompts of B objects, all of one kind, as `GleSamPredictor.predict` takes them."""

    points: npt.NDArray[np.float64] | None
    """Shape [B,N,2], (x, y)."""
    labels: npt.NDArray[np.float32] | None
    """Shape [B,N], all 1 (object)."""
    boxes: npt.NDArray[np.float64] | None
    """Shape [B,4]: x0, y0, x1, y1."""

    def part(self, some: slice) -> Prompts:
        """Return the prompts of some of the objects."""
        return Prompts(
            None if self.points is None else self.points[some],
            None if self.labels is None else self.labels[some],
            None if self.boxes is None else self.boxes[some],
        )


def parse_prompt_kinds(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of prompt kinds: `1-point` to `10-point`, `box`, `noise-box`.

    Raises:
        InputError: a kind is unknown, or the list is empty.
    """
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    if not words:
        raise InputError(f"prompts {text!r}: name 1-point to {MAX_POINTS}-point, box or noise-box")
    kinds = [word if (count := points_of(word)) is None else f"{count}-point" for word in words]
    return tuple(dict.fromkeys(kinds))


def points_of(kind: str) -> int | None:
    """Return the number of points of a kind of prompt; None for a box.

    Raises:
        InputError: the kind is unknown.
    """
    if kind in (BOX, NOISE_BOX):
        return None
    match = _POINTS.fullmatch(kind)
    if match is None or not 1 <= int(match[1]) <= MAX_POINTS:
        raise InputError(
            f"prompt {kind!r}: must be 1-point to {MAX_POINTS}-point, box or noise-box"
        )
    return int(match[1])


def draw_prompts(
    masks: npt.NDArray[np.bool_], numbers: Sequence[int], kind: str, seed: int, name: str
) -> Prompts:
    """Draw a prompt for each mask.

    A prompt depends only on `seed`, the image's `name` and the mask's number. A prompt of fewer
    points contains the first points of a prompt of more, so that only their number differs.

    Args:
        masks: bool [B,H,W].
        numbers: the number of each mask in its image.
        kind: see `parse_prompt_kinds`.
        seed: a whole number >= 0.
        name: the image's name.

    Raises:
        InputError: the kind is unknown, or a mask is empty.
    """
    count = points_of(kind)
    if count is None:
        boxes = [
            _box(mask, kind, np.random.default_rng(derive(seed, name, number, NOISE_BOX)))
            for mask, number in zip(masks, numbers, strict=True)
        ]
        return Prompts(None, None, np.stack(boxes))
    points = [
        random_points(
            mask, MAX_POINTS, np.random.default_rng(derive(seed, name, number, "points"))
        )[:count]
        for mask, number in zip(masks, numbers, strict=True)
    ]
    return Prompts(np.stack(points), np.ones((len(points), count), np.float32), None)


def _box(
    mask: npt.NDArray[np.bool_], kind: str, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    box = tight_box(mask)
    return box if kind == BOX else noise_box(box, NOISE, rng, *mask.shape)


NOISE = 0.2
"""The paper's `amount` for `noise_box`: a share of the box's width and height."""


def random_points(
    mask: npt.NDArray[np.bool_], count: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draw points inside a mask, uniformly over its pixels.

    Args:
        mask: bool [H,W].
        count: number of points. No pixel is drawn twice before all have been drawn once.
        rng: random generator. The first k points of a result are a uniform draw of k points.

    Returns:
        Points as float64 [count,2], (x, y).

    Raises:
        InputError: `count` is below 1, or the mask is empty.
    """
    if count < 1:
        raise InputError(f"{count} points: at least 1 is needed")
    pixels = np.flatnonzero(_check(mask))
    chosen = rng.choice(pixels, min(count, len(pixels)), replace=False)
    if count > len(pixels):
        chosen = np.concatenate([chosen, rng.choice(pixels, count - len(pixels))])
    y, x = np.divmod(chosen, mask.shape[1])
    return np.stack([x, y], axis=1).astype(np.float64)


def tight_box(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the smallest box around a mask, bool [H,W].

    Returns:
        The box as float64 [4]: x0, y0, x1, y1, of which x1 and y1 are exclusive.

    Raises:
        InputError: the mask is empty.
    """
    left, top, width, height = mask_to_xywh(_check(mask))
    return np.asarray([left, top, left + width, top + height], np.float64)


def noise_box(
    box: npt.NDArray[np.float64],
    amount: float,
    rng: np.random.Generator,
    height: int,
    width: int,
) -> npt.NDArray[np.float64]:
    """Move each corner of a box by up to `amount` of its width and height, within the image.

    Each of the four numbers moves independently and uniformly. Because `amount` is below one half,
    opposite edges cannot meet.

    Args:
        box: float64 [4], x0, y0, x1, y1, inside the image.
        amount: share of the box's size, from 0 to below 0.5; the paper uses `NOISE`.
        rng: random generator.
        height: height of the image, pixels.
        width: width of the image, pixels.

    Raises:
        InputError: `amount` is out of range, or the box is empty or reaches outside the image.
    """
    if not 0 <= amount < 0.5:
        raise InputError(f"noise of {amount!r}: must be at least 0 and below 0.5")
    x0, y0, x1, y1 = (float(value) for value in box)
    if not (math.isfinite(x0 + y0 + x1 + y1) and 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise InputError(
            f"box {x0:g},{y0:g},{x1:g},{y1:g}: must lie inside the image of {width} x {height} "
            "pixels and not be empty"
        )
    size = np.asarray([x1 - x0, y1 - y0] * 2)
    moved = np.asarray([x0, y0, x1, y1]) + size * rng.uniform(-amount, amount, 4)
    return np.clip(moved, 0, [width, height, width, height])


def _check(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise InputError(f"mask: {mask.dtype} {list(mask.shape)}, but bool [H, W] is needed")
    if not mask.any():
        raise InputError("mask: is empty, so no prompt can be drawn from it")
    return mask

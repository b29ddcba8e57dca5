"""Prompts drawn from a ground-truth mask, as the paper's evaluation and training do (Sec. 4).

Coordinates are (x, y) in pixels of the image, whole numbers naming a pixel. A box reaches from its
first pixel to one past its last, as COCO's x + width and the exporter's own verification have it:
a box of one pixel is then a box, and `check_prompts` takes it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from glesam_runtime.errors import InputError
from glesam_runtime.masks import mask_to_xywh

NOISE = 0.2
"""How far the paper's noise box has its corners moved, as a share of the box's width and height."""


def random_points(
    mask: npt.NDArray[np.bool_], count: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draw points inside a mask, all pixels alike.

    Args:
        mask: bool [H,W].
        count: how many. No pixel is drawn twice before all have been drawn once.
        rng: decides which; the first k of the result are a fair draw of k points.

    Returns:
        float64 [count,2], (x, y).

    Raises:
        InputError: `count` below 1, or the mask is empty.
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
    """The smallest box around a mask bool [H,W]: float64 [4], x0, y0, x1, y1, x1 and y1 exclusive.

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

    Each of the four numbers moves uniformly and by itself. Below half the box's size no two edges
    can meet, so that a box stays a box.

    Args:
        box: float64 [4], x0, y0, x1, y1, inside the image.
        amount: from 0 to below 0.5; `NOISE` in the paper.
        rng: decides.
        height: the image's, pixels; likewise `width`.
        width: pixels.

    Raises:
        InputError: `amount` out of range, or a box that is empty or reaches outside the image.
    """
    if not 0 <= amount < 0.5:
        raise InputError(f"noise of {amount!r}: must be at least 0 and below 0.5")
    x0, y0, x1, y1 = (float(value) for value in box)
    if not (math.isfinite(x0 + y0 + x1 + y1) and 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise InputError(
            f"box {x0:g},{y0:g},{x1:g},{y1:g}: must lie inside the image of {width} x {height} "
            "pixels and hold something"
        )
    size = np.asarray([x1 - x0, y1 - y0] * 2)
    moved = np.asarray([x0, y0, x1, y1]) + size * rng.uniform(-amount, amount, 4)
    return np.clip(moved, 0, [width, height, width, height])


def _check(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise InputError(f"mask: {mask.dtype} {list(mask.shape)}, but bool [H, W] is needed")
    if not mask.any():
        raise InputError("mask: empty, no prompt can be drawn from it")
    return mask

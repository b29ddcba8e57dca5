"""What a segmenter is told of each object: 1 to 10 points, its box, or its box with noise."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glesam_evaluation.conditions import derive
from glesam_evaluation.prompting import NOISE, noise_box, random_points, tight_box
from glesam_runtime.errors import InputError

MAX_POINTS = 10
BOX, NOISE_BOX = "box", "noise-box"
_POINTS = re.compile(r"(\d{1,4})-points?", re.ASCII)


@dataclass(frozen=True, eq=False)
class Prompts:
    """The prompts of B objects, all of one kind, as `GleSamPredictor.predict` takes them."""

    points: npt.NDArray[np.float64] | None
    """[B,N,2], (x, y)."""
    labels: npt.NDArray[np.float32] | None
    """[B,N], all 1."""
    boxes: npt.NDArray[np.float64] | None
    """[B,4], x0, y0, x1, y1."""

    def part(self, some: slice) -> Prompts:
        """Those of some of the objects."""
        return Prompts(
            None if self.points is None else self.points[some],
            None if self.labels is None else self.labels[some],
            None if self.boxes is None else self.boxes[some],
        )


def parse_prompt_kinds(text: str) -> tuple[str, ...]:
    """Read a comma list of prompt kinds: `1-point` to `10-point`, `box`, `noise-box`.

    Raises:
        InputError: anything else, or nothing.
    """
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    if not words:
        raise InputError(f"prompts {text!r}: name 1-point to {MAX_POINTS}-point, box or noise-box")
    kinds = [word if (count := points_of(word)) is None else f"{count}-point" for word in words]
    return tuple(dict.fromkeys(kinds))


def points_of(kind: str) -> int | None:
    """How many points a kind has; None for a box.

    Raises:
        InputError: no such kind.
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

    Each depends on `seed`, the image's `name` and the mask's number alone. Fewer points are the
    first of more, so that their number is all that differs.

    Args:
        masks: bool [B,H,W].
        numbers: each mask's number in its image.
        kind: see `parse_prompt_kinds`.
        seed: a whole number >= 0.
        name: the image's.

    Raises:
        InputError: no such kind, or an empty mask.
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

"""Check points, boxes and mask prompts, and turn them into the decoder's input tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime.errors import InputError
from glesam_runtime.limits import POINTS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from glesam_runtime.image import Geometry
    from glesam_runtime.manifest import Coordinates

BACKGROUND, FOREGROUND = 0, 1
BOX_CORNERS = (2, 3)
PADDING = -1


@dataclass(frozen=True)
class PromptBatch:
    """A batch of B prompts, each for one object; all have the same kinds of input."""

    points: NDArray[np.float64]
    """[B, N, 2], (x, y) in pixels of the original image; N may be 0."""
    labels: NDArray[np.float32]
    """[B, N], 1 foreground, 0 background."""
    boxes: NDArray[np.float64] | None
    """[B, 4], x0, y0, x1, y1 in pixels of the original image."""
    masks: NDArray[np.float32] | None
    """[B, 1, S/4, S/4], logits of an earlier prediction."""

    @property
    def size(self) -> int:
        """Return the number of prompts, B."""
        return len(self.points)


def as_batch(
    geometry: Geometry,
    point_coords: ArrayLike | None = None,
    point_labels: ArrayLike | None = None,
    box: ArrayLike | None = None,
    mask_input: ArrayLike | None = None,
) -> tuple[bool, PromptBatch]:
    """Turn one prompt or B prompts into a checked batch; one prompt has no leading axis B.

    Returns:
        Whether the arrays had the leading axis, and the prompts.

    Raises:
        InputError: only some arrays have the leading axis, or `check_prompts` refuses them.
    """
    single_axes = {
        "points": (point_coords, 2),
        "labels": (point_labels, 1),
        "box": (box, 1),
        "mask": (mask_input, 3),
    }
    given = {
        name: (_rank(value, name), axes)
        for name, (value, axes) in single_axes.items()
        if value is not None
    }
    batched = any(rank == axes + 1 for rank, axes in given.values())
    for name, (rank, axes) in given.items():
        if rank != axes + batched:
            shape = f"{axes} for one prompt or {axes + 1} for a batch"
            raise InputError(
                f"{name}: {rank} axes; use {shape}, the same for every part of the prompt"
            )

    def lift(value: ArrayLike | None) -> ArrayLike | None:
        return value if value is None or batched else np.asarray(value)[None]

    lifted = (lift(value) for value in (point_coords, point_labels, box, mask_input))
    return batched, check_prompts(geometry, *lifted)


def check_prompts(
    geometry: Geometry,
    point_coords: ArrayLike | None = None,
    point_labels: ArrayLike | None = None,
    boxes: ArrayLike | None = None,
    masks: ArrayLike | None = None,
) -> PromptBatch:
    """Check B prompts against an image and return them as arrays.

    A box must overlap the image. It may extend beyond the image on each side, as a jittered box
    does, by at most the image's width or height.

    Args:
        geometry: size of the image.
        point_coords: [B, N, 2], (x, y) in pixels of the original image.
        point_labels: [B, N], 1 or 0.
        boxes: [B, 4], x0, y0, x1, y1 in pixels of the original image.
        masks: [B, 1, S/4, S/4], logits.

    Raises:
        InputError: there is no prompt, or a prompt cannot be used.
    """
    if (point_coords is None) != (point_labels is None):
        given, lacking = ("points", "labels") if point_labels is None else ("labels", "points")
        raise InputError(f"{given} are given without {lacking}")
    if point_coords is None and boxes is None and masks is None:
        raise InputError("no prompt: give points, a box or a mask")
    sizes: dict[str, int] = {}
    points = np.zeros((0, 0, 2))
    labels = np.zeros((0, 0), np.float32)
    if point_coords is not None and point_labels is not None:
        points = _numbers(point_coords, "points")
        if points.ndim != 3 or points.shape[2] != 2 or points.shape[1] == 0:
            raise InputError(
                f"points: shape {list(points.shape)}, but [N, 2] or [B, N, 2] is needed, N >= 1"
            )
        POINTS.check(points.shape[1], f"points: {points.shape[1]} in one prompt")
        labels = _numbers(point_labels, "labels").astype(np.float32)
        if labels.shape != points.shape[:2]:
            raise InputError(
                f"labels: shape {list(labels.shape)} does not match points {list(points.shape)}"
            )
        _check_points(points.reshape(-1, 2), labels.reshape(-1), geometry)
        sizes["points"] = len(points)
    box_array = None
    if boxes is not None:
        box_array = _numbers(boxes, "box")
        if box_array.ndim != 2 or box_array.shape[1] != 4:
            raise InputError(
                f"box: shape {list(box_array.shape)}, but [4] or [B, 4] is needed: x0, y0, x1, y1"
            )
        for box in box_array:
            _check_box(box, geometry)
        sizes["boxes"] = len(box_array)
    mask_array = None
    if masks is not None:
        mask_array = _numbers(masks, "mask prompt").astype(np.float32)
        side = geometry.image_size // 4
        if mask_array.ndim != 4 or mask_array.shape[1:] != (1, side, side):
            raise InputError(
                f"mask prompt: shape {list(mask_array.shape)}, but [1, {side}, {side}] or "
                f"[B, 1, {side}, {side}] is needed: low_res_masks of an earlier prediction"
            )
        sizes["masks"] = len(mask_array)
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        spelled = ", ".join(f"{count} {name}" for name, count in sizes.items())
        raise InputError(f"batch sizes do not match: {spelled}")
    batch = next(iter(sizes.values()))
    if point_coords is None:
        points, labels = np.zeros((batch, 0, 2)), np.zeros((batch, 0), np.float32)
    return PromptBatch(points, labels, box_array, mask_array)


def split(prompts: PromptBatch, size: int) -> Iterator[PromptBatch]:
    """Yield the prompts in order, in batches of at most `size`."""
    for start in range(0, prompts.size, size):
        part = slice(start, start + size)
        yield PromptBatch(
            prompts.points[part],
            prompts.labels[part],
            None if prompts.boxes is None else prompts.boxes[part],
            None if prompts.masks is None else prompts.masks[part],
        )


def prompt_tensors(
    prompts: PromptBatch, geometry: Geometry, rules: Coordinates
) -> dict[str, NDArray[np.float32]]:
    """Return the decoder's four prompt inputs, with tokens in the order of SAM's prompt encoder.

    The points come first, then the two corners of the box, then a padding point if the prompt has
    points only or `rules.box` asks for one. A mask alone has no tokens: P is 0.

    Returns:
        float32 point_coords [B, P, 2], point_labels [B, P], mask_input [B, 1, S/4, S/4] and
        has_mask_input [1].
    """
    scale = _scale(geometry)
    points = [prompts.points * scale]
    labels = [prompts.labels]
    if prompts.boxes is not None:
        points.append(prompts.boxes.reshape(-1, 2, 2) * scale)
        labels.append(np.tile(np.asarray(BOX_CORNERS, np.float32), (prompts.size, 1)))
    if prompts.boxes is not None:
        padded = rules.box == "two_points_padded"
    else:
        padded = prompts.points.shape[1] > 0
    if padded:
        points.append(np.zeros((prompts.size, 1, 2)))
        labels.append(np.full((prompts.size, 1), PADDING, np.float32))
    side = geometry.image_size // 4
    masks = prompts.masks
    return {
        "point_coords": np.concatenate(points, axis=1).astype(np.float32),
        "point_labels": np.concatenate(labels, axis=1).astype(np.float32),
        "mask_input": np.zeros((prompts.size, 1, side, side), np.float32)
        if masks is None
        else masks,
        "has_mask_input": np.asarray([masks is not None], np.float32),
    }


def _scale(geometry: Geometry) -> NDArray[np.float64]:
    """Return the (x, y) factors from the original to the resized image."""
    (height, width), (new_height, new_width) = geometry.original, geometry.resized
    return np.asarray([new_width / width, new_height / height])


def _rank(value: ArrayLike, name: str) -> int:
    """Return the number of axes."""
    try:
        return np.asarray(value).ndim
    except ValueError as error:  # rows of different lengths
        raise InputError(f"{name}: not an array of numbers ({error})") from error


def _numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Convert values to float64, and refuse values that are not finite numbers."""
    try:
        array: NDArray[Any] = np.asarray(values)
        if array.dtype.kind not in "biuf":
            raise ValueError(array.dtype.name)
        numbers = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: not an array of numbers ({error})") from error
    if not np.isfinite(numbers).all():
        raise InputError(f"{name}: holds NaN or infinity")
    return numbers


def _check_points(
    points: NDArray[np.float64], labels: NDArray[np.float32], geometry: Geometry
) -> None:
    """Refuse points outside the image and labels other than 0 and 1."""
    height, width = geometry.original
    for (x, y), label in zip(points, labels, strict=True):
        if not (0 <= x < width and 0 <= y < height):
            raise InputError(
                f"point {x:g},{y:g} lies outside the image of {width} x {height} pixels"
            )
        if label not in (BACKGROUND, FOREGROUND):
            raise InputError(
                f"label {label:g} of point {x:g},{y:g}: must be 1 (object) or 0 (background)"
            )


def _check_box(box: NDArray[np.float64], geometry: Geometry) -> None:
    """Refuse a box with swapped corners, outside the image or too far beyond it."""
    height, width = geometry.original
    x0, y0, x1, y1 = box
    spelled = f"box {x0:g},{y0:g},{x1:g},{y1:g}"
    if x1 <= x0 or y1 <= y0:
        raise InputError(f"{spelled}: x1 must exceed x0 and y1 must exceed y0")
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise InputError(f"{spelled} lies outside the image of {width} x {height} pixels")
    if x0 < -width or y0 < -height or x1 > 2 * width or y1 > 2 * height:
        raise InputError(f"{spelled} extends too far beyond the image of {width} x {height} pixels")

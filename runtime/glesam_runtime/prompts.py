"""Check points, boxes and mask prompts, and turn them into the decoder's input tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime.errors import InputError
from glesam_runtime.limits import POINTS, PROMPTS

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
    """[B, N], 1 foreground, 0 background, -1 no point."""
    boxes: NDArray[np.float64] | None
    """[B, 4], x0, y0, x1, y1 in pixels of the original image."""
    masks: NDArray[np.float32] | None
    """[B, 1, S/4, S/4], logits of an earlier prediction."""

    @property
    def size(self) -> int:
        """Return the number of prompts, B."""
        return len(self.points)

    @property
    def kind(self) -> tuple[int, bool, bool]:
        """Return what prompts must share to be joined: points per prompt, and which inputs."""
        return self.points.shape[1], self.boxes is None, self.masks is None


def as_batch(
    geometry: Geometry,
    point_coords: ArrayLike | None = None,
    point_labels: ArrayLike | None = None,
    box: ArrayLike | None = None,
    mask_input: ArrayLike | None = None,
) -> tuple[bool, PromptBatch]:
    """Turn one prompt or B prompts into a checked batch.

    Each array may have a leading axis B or not; without it the array belongs to a single prompt.

    Returns:
        Whether the results keep the axis B, which they do unless B is 1, and the prompts.

    Raises:
        InputError: the arrays have different B, or `check_prompts` refuses them.
    """
    prompts = check_prompts(
        geometry,
        _with_batch_axis(point_coords, 2, "points"),
        _with_batch_axis(point_labels, 1, "labels"),
        _with_batch_axis(box, 1, "box"),
        _with_batch_axis(mask_input, 3, "mask"),
        swapped_corners=True,
    )
    return prompts.size != 1, prompts


def check_prompts(
    geometry: Geometry,
    point_coords: ArrayLike | None = None,
    point_labels: ArrayLike | None = None,
    boxes: ArrayLike | None = None,
    masks: ArrayLike | None = None,
    *,
    swapped_corners: bool = False,
) -> PromptBatch:
    """Check B prompts against an image and return them as arrays.

    A point may lie on the image's right or lower edge (x = W, y = H). A box must touch the image.
    It may extend beyond the image on each side, as a jittered box does, by at most the image's
    width or height.

    Args:
        geometry: size of the image.
        point_coords: [B, N, 2], (x, y) in pixels of the original image.
        point_labels: [B, N], 1 for the object, 0 for the background, -1 for no point, which fills
            up prompts of fewer points. Coordinates of such points are ignored.
        boxes: [B, 4], x0, y0, x1, y1 in pixels of the original image.
        masks: [B, 1, S/4, S/4], logits; [1, 1, S/4, S/4] is the same for all prompts.
        swapped_corners: True takes boxes without area and boxes with x1 < x0 or y1 < y0 as they
            are, as segment_anything does. False refuses them, as mistakes of typing.

    Raises:
        InputError: there is no prompt, or a prompt cannot be used. No prompts at all, B = 0, are no
            error.
    """
    if (point_coords is None) != (point_labels is None):
        given, lacking = ("points", "labels") if point_labels is None else ("labels", "points")
        raise InputError(f"{given} are given without {lacking}")
    sizes: dict[str, int] = {}
    points, labels = np.zeros((0, 0, 2)), np.zeros((0, 0), np.float32)
    if point_coords is not None and point_labels is not None:
        points, labels = _points_and_labels(point_coords, point_labels, geometry)
        sizes["points"] = len(points)
    box_array = None if boxes is None else _boxes(boxes, geometry, swapped_corners)
    if box_array is not None:
        sizes["boxes"] = len(box_array)
    mask_array = None if masks is None else _masks(masks, geometry.image_size // 4)
    if mask_array is not None and not (len(mask_array) == 1 and sizes):
        sizes["masks"] = len(mask_array)
    if len(set(sizes.values())) > 1:
        spelled = ", ".join(f"{count} {name}" for name, count in sizes.items())
        raise InputError(f"batch sizes do not match: {spelled}")
    batch = next(iter(sizes.values()), None)
    if batch is None or (batch and not points.size and boxes is None and masks is None):
        raise InputError("no prompt: give points, a box or a mask")
    if point_coords is None:
        points, labels = np.zeros((batch, 0, 2)), np.zeros((batch, 0), np.float32)
    if mask_array is not None and len(mask_array) != batch:
        mask_array = np.repeat(mask_array, batch, axis=0)
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


def join(parts: Sequence[PromptBatch]) -> PromptBatch:
    """Return prompts of the same kind, one batch or more, as one batch."""
    if len(parts) == 1:
        return parts[0]
    boxes = [part.boxes for part in parts if part.boxes is not None]
    masks = [part.masks for part in parts if part.masks is not None]
    return PromptBatch(
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate(boxes) if boxes else None,
        np.concatenate(masks) if masks else None,
    )


def group_alike(batches: Sequence[PromptBatch]) -> list[tuple[list[int], PromptBatch]]:
    """Join prompts of the same kind, for one decoder call per group.

    Returns:
        For each group the positions of its members in `batches`, and the joined batch.
    """
    groups: dict[tuple[int, bool, bool], list[int]] = {}
    for index, batch in enumerate(batches):
        groups.setdefault(batch.kind, []).append(index)
    return [(members, join([batches[index] for index in members])) for members in groups.values()]


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


def _with_batch_axis(value: ArrayLike | None, axes: int, name: str) -> NDArray[Any] | None:
    """Return a value of one prompt, which has `axes` axes, or of B prompts with the axis B.

    An empty list holds no points of one prompt, or no boxes.
    """
    if value is None:
        return None
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"{name}: not an array of numbers ({error})") from error
    if array.shape == (0,) and name in ("points", "box"):
        return np.zeros((1, 0, 2) if name == "points" else (0, 4))
    if array.ndim not in (axes, axes + 1):
        raise InputError(
            f"{name}: {array.ndim} axes; use {axes} for one prompt or {axes + 1} for a batch"
        )
    return array[None] if array.ndim == axes else array


def _numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Convert values of B prompts to float64.

    Raises:
        InputError: they are no numbers, or there are too many prompts.
    """
    try:
        array: NDArray[Any] = np.asarray(values)
        if array.dtype.kind not in "biuf":
            raise ValueError(array.dtype.name)
        if array.ndim:
            PROMPTS.check(len(array), f"{name}: {len(array)} prompts")
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: not an array of numbers ({error})") from error


def _points_and_labels(
    point_coords: ArrayLike, point_labels: ArrayLike, geometry: Geometry
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return points [B, N, 2] and labels [B, N]; points of label -1 are at 0, 0.

    Raises:
        InputError: a shape or a label is wrong, or a point is not finite or outside the image.
    """
    points = _numbers(point_coords, "points")
    if points.ndim != 3 or points.shape[2] != 2:
        raise InputError(f"points: shape {list(points.shape)}, but [N, 2] or [B, N, 2] is needed")
    POINTS.check(points.shape[1], f"points: {points.shape[1]} in one prompt")
    labels = _numbers(point_labels, "labels").astype(np.float32)
    if labels.shape != points.shape[:2]:
        raise InputError(
            f"labels: shape {list(labels.shape)} does not match points {list(points.shape)}"
        )
    points = np.where((labels == PADDING)[..., None], 0, points)
    if not np.isfinite(points).all():
        raise InputError("points: holds NaN or infinity")
    height, width = geometry.original
    for (x, y), label in zip(points.reshape(-1, 2), labels.reshape(-1), strict=True):
        if not (0 <= x <= width and 0 <= y <= height):
            raise InputError(
                f"point {x:g},{y:g} lies outside the image of {width} x {height} pixels"
            )
        if label not in (BACKGROUND, FOREGROUND, PADDING):
            raise InputError(
                f"label {label:g} of point {x:g},{y:g}: must be 1 (object), 0 (background) or -1 "
                "(no point)"
            )
    return points, labels


def _boxes(values: ArrayLike, geometry: Geometry, swapped_corners: bool) -> NDArray[np.float64]:
    """Return boxes [B, 4].

    Raises:
        InputError: the shape is wrong, or a box is not finite, outside the image or far beyond it,
            or has swapped corners without `swapped_corners`.
    """
    boxes = _numbers(values, "box")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(
            f"box: shape {list(boxes.shape)}, but [4] or [B, 4] is needed: x0, y0, x1, y1"
        )
    if not np.isfinite(boxes).all():
        raise InputError("box: holds NaN or infinity")
    height, width = geometry.original
    for box in boxes:
        (low_x, high_x), (low_y, high_y) = sorted(box[::2]), sorted(box[1::2])
        spelled = "box " + ",".join(f"{each:g}" for each in box)
        size = f"the image of {width} x {height} pixels"
        if not swapped_corners and (box[2] <= box[0] or box[3] <= box[1]):
            raise InputError(f"{spelled}: x1 must exceed x0 and y1 must exceed y0")
        if high_x < 0 or high_y < 0 or low_x > width or low_y > height:
            raise InputError(f"{spelled} lies outside {size}")
        if low_x < -width or low_y < -height or high_x > 2 * width or high_y > 2 * height:
            raise InputError(f"{spelled} extends too far beyond {size}")
    return boxes


def _masks(values: ArrayLike, side: int) -> NDArray[np.float32]:
    """Return mask prompts [B, 1, S/4, S/4].

    Raises:
        InputError: the shape is wrong, or a logit is not finite. From an infinite logit, SAM and
            SAM 2 compute NaN for the whole image.
    """
    with np.errstate(over="ignore"):  # what exceeds float32 becomes infinite, and is refused
        masks = _numbers(values, "mask prompt").astype(np.float32)
    if masks.ndim != 4 or masks.shape[1:] != (1, side, side):
        raise InputError(
            f"mask prompt: shape {list(masks.shape)}, but [1, {side}, {side}] or "
            f"[B, 1, {side}, {side}] is needed: low_res_masks of an earlier prediction"
        )
    if not np.isfinite(masks).all():
        raise InputError(
            "mask prompt: holds NaN or infinity, from which the decoder computes NaN everywhere; "
            "clip the logits, for example to -32 ... 32"
        )
    return masks

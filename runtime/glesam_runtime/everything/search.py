"""Search an image for masks: prompt a grid, filter the masks, drop duplicates, tidy up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime.everything.crops import Box, Crop, near_crop_edge, plan_crops
from glesam_runtime.everything.grids import layer_grids
from glesam_runtime.everything.parameters import thresholds
from glesam_runtime.everything.regions import fill_small_holes, remove_small_islands
from glesam_runtime.image import check_image
from glesam_runtime.masks import mask_to_xywh
from glesam_runtime.prompts import FOREGROUND, PromptBatch
from glesam_runtime.rle import count_runs, run_box

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from glesam_runtime.everything.parameters import Parameters
    from glesam_runtime.manifest import EverythingThresholds
    from glesam_runtime.predictor import GleSamPredictor
    from glesam_runtime.rle import RunLengths


@dataclass(frozen=True)
class Found:
    """A mask that was kept, and where it was found; all in pixels of the whole image."""

    runs: RunLengths
    """The mask [H, W] as `rle.count_runs`, because all masks together do not fit in memory."""
    box: Box
    """First and last column and row: x0, y0, x1, y1."""
    predicted_iou: float
    stability: float
    point: tuple[float, float]
    """(x, y) of the prompt."""
    crop: Crop


def find_masks(
    predictor: GleSamPredictor,
    image: NDArray[np.uint8],
    parameters: Parameters,
    progress: Callable[[int, int], None] | None = None,
    whole: Callable[[], None] | None = None,
) -> list[Found]:
    """Return the masks of everything in an image; the list is empty if there are none.

    Args:
        predictor: the predictor to use; its image is reset.
        image: uint8 [H, W, 3], RGB.
        parameters: how densely to search and which masks to keep.
        progress: called with how many points of all crops are done of how many.
        whole: called when the whole image is the predictor's.

    Raises:
        InputError: the array is not such an image, or it is too small for the crops.
    """
    height, width = check_image(image).shape[:2]

    def set_crop(crop: Crop) -> None:
        x0, y0, x1, y1 = crop.box
        predictor.set_image(np.ascontiguousarray(image[y0:y1, x0:x1]))
        if crop.layer == 0 and whole is not None:
            whole()

    return search_crops(predictor, height, width, set_crop, parameters, progress)


def search_crops(
    predictor: GleSamPredictor,
    height: int,
    width: int,
    set_crop: Callable[[Crop], None],
    parameters: Parameters,
    progress: Callable[[int, int], None] | None = None,
) -> list[Found]:
    """Return the masks of everything in an image that the caller encodes, as `find_masks`.

    Args:
        predictor: the predictor to use; its image is reset.
        height: height of the image in pixels.
        width: width of the image in pixels.
        set_crop: makes a crop the predictor's image. The first one is the whole image.
        parameters: how densely to search and which masks to keep.
        progress: called with how many points of all crops are done of how many.

    Raises:
        InputError: the image is too small for the crops.
    """
    keep = thresholds(predictor.bundle.manifest, parameters)
    grids = layer_grids(
        parameters.points_per_side,
        parameters.point_grids,
        parameters.crop_n_layers,
        parameters.crop_n_points_downscale_factor,
    )
    crops = plan_crops(height, width, parameters.crop_n_layers, parameters.crop_overlap_ratio)
    total = sum(len(grids[crop.layer]) for crop in crops)
    done = 0

    def advance(points: int) -> None:
        nonlocal done
        done += points
        if progress is not None:
            progress(done, total)

    advance(0)
    found: list[Found] = []
    try:
        for crop in crops:
            x0, y0, x1, y1 = crop.box
            set_crop(crop)
            points = grids[crop.layer] * [x1 - x0, y1 - y0]
            here = list(_search_crop(predictor, crop, crops[0], points, parameters, keep, advance))
            scores = [one.predicted_iou for one in here]
            found += without_duplicates(here, scores, parameters.box_nms_thresh)
    finally:
        predictor.reset_image()
    if len(crops) > 1:
        scores = [1 / one.crop.area for one in found]
        found = without_duplicates(found, scores, parameters.crop_nms_thresh)
    if parameters.min_mask_region_area > 0:
        found = tidy(found, height, parameters)
    return found


def _search_crop(
    predictor: GleSamPredictor,
    crop: Crop,
    whole: Crop,
    points: NDArray[np.float64],
    parameters: Parameters,
    keep: EverythingThresholds,
    advance: Callable[[int], None],
) -> Iterator[Found]:
    """Yield the masks of a crop that are good enough; the predictor has the crop as its image.

    `points` are [N, 2], (x, y) in pixels of the crop. `advance` is called with the number of points
    of each batch that is done.
    """
    for low_res, iou, (x, y) in candidates(predictor, points, parameters, keep, advance):
        measured = _measure(predictor, low_res, crop, whole, keep)
        if measured is not None:
            runs, box, stability = measured
            place = x + crop.box[0], y + crop.box[1]
            yield Found(runs, box, iou, stability, place, crop)


def candidates(
    predictor: GleSamPredictor,
    points: NDArray[np.float64],
    parameters: Parameters,
    keep: EverythingThresholds,
    advance: Callable[[int], None],
) -> Iterator[tuple[NDArray[np.float32], float, tuple[float, float]]]:
    """Prompt the predictor's image with points, and yield the masks of a good predicted IoU.

    Args:
        predictor: the predictor, with an image.
        points: [N, 2], (x, y) in pixels of the image.
        parameters: how many points are decoded together.
        keep: the thresholds.
        advance: called with the number of points of each batch that is done.

    Yields:
        The logits [S/4, S/4], the predicted IoU and the point of a mask.
    """
    size = parameters.points_per_batch
    for batch in (points[at : at + size] for at in range(0, len(points), size)):
        labels = np.full((len(batch), 1), FOREGROUND, np.float32)
        prompts = PromptBatch(batch[:, None], labels, None, None)
        low_res, iou = predictor.decode(prompts)
        good = iou > (keep.pred_iou_thresh or -np.inf)
        for prompt, index in np.argwhere(good):  # only these are upscaled
            x, y = batch[prompt].tolist()
            yield low_res[prompt, index], float(iou[prompt, index]), (x, y)
        advance(len(batch))


def _measure(
    predictor: GleSamPredictor,
    low_res: NDArray[np.float32],
    crop: Crop,
    whole: Crop,
    keep: EverythingThresholds,
) -> tuple[RunLengths, Box, float] | None:
    """Return runs, box and stability of a mask from its logits [S/4, S/4].

    Return None if the mask is not stable enough or if the edge of the crop cuts it off.
    """
    made = predictor.binarize(low_res, keep.stability_score_offset)
    stability = float(np.float32(made.stability))
    if stability < np.float32(keep.stability_score_thresh):
        return None
    left, top, width, height = mask_to_xywh(made.masks)
    x0, y0 = left + crop.box[0], top + crop.box[1]
    box = x0, y0, x0 + max(width - 1, 0), y0 + max(height - 1, 0)
    if near_crop_edge(box, crop, whole):
        return None
    window = made.masks[top : top + height, left : left + width]
    runs = count_runs(window, (whole.box[3], whole.box[2]), (y0, x0))
    return runs.astype(np.int32), box, stability  # half the memory; no image has 2**31 pixels


def without_duplicates(
    found: Sequence[Found], scores: ArrayLike, iou_threshold: float
) -> list[Found]:
    """Drop each mask whose box overlaps that of a kept mask of a higher score."""
    kept = non_maximum_suppression([one.box for one in found], scores, iou_threshold)
    return [found[index] for index in kept]


def tidy(found: Sequence[Found], height: int, parameters: Parameters) -> list[Found]:
    """Fill small holes, remove small islands, and drop duplicates again.

    If this makes two masks duplicates of each other, the one that it did not change stays.
    """
    tidied, unchanged = [], []
    for one in found:
        runs, filled = fill_small_holes(one.runs, height, parameters.min_mask_region_area)
        runs, removed = remove_small_islands(runs, height, parameters.min_mask_region_area)
        changed = filled or removed
        tidied.append(replace(one, runs=runs, box=run_box(runs, height)) if changed else one)
        unchanged.append(not changed)
    threshold = max(parameters.box_nms_thresh, parameters.crop_nms_thresh)
    return without_duplicates(tidied, unchanged, threshold)


def non_maximum_suppression(
    boxes: ArrayLike, scores: ArrayLike, iou_threshold: float
) -> NDArray[np.int64]:
    """Drop each box that overlaps a kept box of a higher score.

    The arithmetic is that of torchvision.ops.nms: areas and IoU in float32, the comparison in
    float64. Of boxes with equal scores the first is kept. Two boxes without area never overlap.

    Args:
        boxes: [N, 4], x0, y0, x1, y1.
        scores: [N].
        iou_threshold: a box is dropped if its IoU with a kept box is greater.

    Returns:
        Indices of the kept boxes [K], highest score first.
    """
    order = np.argsort(-np.asarray(scores, np.float32), kind="stable")
    corners = np.asarray(boxes, np.float32).reshape(-1, 4)[order]
    kept = []
    while order.size:
        kept.append(order[0])
        apart = ~(_iou_of_first(corners) > iou_threshold)
        apart[0] = False
        order, corners = order[apart], corners[apart]
    return np.asarray(kept, np.int64)


def _iou_of_first(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the IoU of the first box with each box: [N]."""
    low = np.maximum(boxes[0, :2], boxes[:, :2])
    high = np.minimum(boxes[0, 2:], boxes[:, 2:])
    overlap = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    with np.errstate(invalid="ignore"):  # two boxes without area: 0 / 0 is NaN, no overlap
        iou: NDArray[np.float32] = overlap / (areas[0] + areas - overlap)
    return iou.astype(np.float64)

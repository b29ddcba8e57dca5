"""Which boxes are duplicates of a better one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def non_maximum_suppression(
    boxes: ArrayLike, scores: ArrayLike, iou_threshold: float
) -> NDArray[np.int64]:
    """Go through boxes from the highest score down and drop what overlaps one that was kept.

    The arithmetic is that of torchvision.ops.nms: areas and IoU in float32, the comparison in
    float64; of equal scores the earlier box comes first; two boxes without area never overlap.

    Args:
        boxes: [N, 4], x0, y0, x1, y1.
        scores: [N].
        iou_threshold: a box goes where its IoU with a kept one is greater.

    Returns:
        Indices of the kept boxes, highest score first.
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
    """IoU of the first box with each: [N]."""
    low = np.maximum(boxes[0, :2], boxes[:, :2])
    high = np.minimum(boxes[0, 2:], boxes[:, 2:])
    overlap = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    with np.errstate(invalid="ignore"):  # no area at all: 0 / 0, which is no overlap
        iou: NDArray[np.float32] = overlap / (areas[0] + areas - overlap)
    return iou.astype(np.float64)

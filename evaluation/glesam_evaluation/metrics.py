"""Compute IoU, Dice, pixel accuracy and boundary IoU of masks, and the sharpness of images.

Every metric of masks takes two bool arrays of one shape [...,H,W] and returns float64 [...], one
value per mask. `empty` is the value where both masks are empty: 1 says that they agree, and 0 is
what the released code of GleSAM counts. Datasets have no empty truth, so it only matters for other
masks.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from glesam_runtime.errors import InputError

Masks = npt.NDArray[np.bool_]
Figures = npt.NDArray[np.float64]

BOUNDARY = 0.02
"""Width of a boundary, as a share of the image's diagonal (arXiv 2103.16562)."""


def iou(predicted: Masks, truth: Masks, *, empty: float = 1.0) -> Figures:
    """Return the intersection over the union; `empty` where both masks are empty.

    Raises:
        InputError: the masks are not bool, or their shapes differ.
    """
    both, either, _ = _counts(predicted, truth)
    return _ratio(both, either, empty)


def dice(predicted: Masks, truth: Masks, *, empty: float = 1.0) -> Figures:
    """Return twice the intersection over the sum of both areas; `empty` where both are empty.

    Raises:
        InputError: the masks are not bool, or their shapes differ.
    """
    both, either, _ = _counts(predicted, truth)
    return _ratio(2 * both, both + either, empty)


def boundary_iou(
    predicted: Masks, truth: Masks, *, width: float = BOUNDARY, empty: float = 1.0
) -> Figures:
    """Return the IoU of the boundaries of both masks; `empty` where both masks are empty.

    The boundary of a mask is the part of it that lies within `width` times the image's diagonal of
    its edge, counted in steps to one of eight neighbours. The border of the image is an edge.

    Raises:
        InputError: the masks are not bool, or their shapes differ.
    """
    _counts(predicted, truth)  # checks
    return iou(_boundaries(predicted, width), _boundaries(truth, width), empty=empty)


def pixel_accuracy(predicted: Masks, truth: Masks) -> Figures:
    """Return the share of all pixels, background included, on which both masks agree.

    Raises:
        InputError: the masks are not bool, or their shapes differ.
    """
    both, either, pixels = _counts(predicted, truth)
    return _ratio(pixels - either + both, np.full_like(both, pixels), 1.0)


def sharpness(image: npt.NDArray[np.uint8]) -> float:
    """Return the variance of the Laplacian of an image, uint8 RGB [H,W,3], in gray levels squared.

    The Laplacian is the sum of the four neighbours less four times the pixel. Sharp images have a
    high variance, blurred images a low one. Noise raises it too, and it depends on what an image
    shows, so it compares conditions better than images.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(gray, cv2.CV_64F).var())


def _counts(
    predicted: Masks, truth: Masks
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Count the pixels in both masks, in either of them, and in the image."""
    if predicted.dtype != np.bool_ or truth.dtype != np.bool_ or predicted.shape != truth.shape:
        raise InputError(
            f"masks: {predicted.dtype} {list(predicted.shape)} and {truth.dtype} "
            f"{list(truth.shape)}, but two bool arrays of one shape are needed"
        )
    if predicted.ndim < 2:
        raise InputError(f"masks: shape {list(predicted.shape)}, but [..., H, W] is needed")
    both = np.count_nonzero(predicted & truth, axis=(-2, -1))
    either = np.count_nonzero(predicted | truth, axis=(-2, -1))
    return np.asarray(both), np.asarray(either), predicted.shape[-1] * predicted.shape[-2]


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64], empty: float) -> Figures:
    return np.where(whole == 0, empty, part / np.maximum(whole, 1))


def _boundaries(masks: Masks, width: float) -> Masks:
    height, columns = masks.shape[-2:]
    steps = max(1, round(width * math.hypot(height, columns)))
    # The distance to the nearest pixel outside, along a row, a column or a diagonal, is what
    # erosion by 3 x 3 pixels counts.
    inside = np.zeros((height + 2, columns + 2), np.uint8)
    found = np.empty(masks.shape, np.bool_)
    for index in np.ndindex(masks.shape[:-2]):
        inside[1:-1, 1:-1] = masks[index]
        depth = cv2.distanceTransform(inside, cv2.DIST_C, 3)[1:-1, 1:-1]
        found[index] = masks[index] & (depth <= steps)
    return found

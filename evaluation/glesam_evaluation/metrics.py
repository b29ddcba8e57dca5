"""Compute IoU, Dice and pixel accuracy of masks against the ground truth (paper, Sec. 4).

Every function takes two bool arrays of one shape [...,H,W] and returns float64 [...], one value per
mask.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from glesam_runtime.errors import InputError

Masks = npt.NDArray[np.bool_]
Figures = npt.NDArray[np.float64]


def iou(predicted: Masks, truth: Masks) -> Figures:
    """Return the intersection over the union; 1 where both masks are empty.

    Raises:
        InputError: the masks are not bool, or their shapes differ.
    """
    both, either, _ = _counts(predicted, truth)
    return _ratio(both, either)


def dice(predicted: Masks, truth: Masks) -> Figures:
    """Return twice the intersection over the sum of both areas; 1 where both masks are empty.

    Raises:
        InputError: the masks are not bool, or their shapes differ.
    """
    both, either, _ = _counts(predicted, truth)
    return _ratio(2 * both, both + either)


def pixel_accuracy(predicted: Masks, truth: Masks) -> Figures:
    """Return the share of all pixels, background included, on which both masks agree.

    Raises:
        InputError: the masks are not bool, or their shapes differ.
    """
    both, either, pixels = _counts(predicted, truth)
    return _ratio(pixels - either + both, np.full_like(both, pixels))


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


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> Figures:
    return np.where(whole == 0, 1.0, part / np.maximum(whole, 1))

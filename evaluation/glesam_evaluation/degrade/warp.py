"""Warp an image by the elastic transform of RobustSeg, and its masks with it.

The elastic transform is the one degradation that moves what an image shows, so that the truth has
to move with it. RobustSAM's published code leaves the masks as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from glesam_evaluation.degrade.apply import FloatImage

Masks = npt.NDArray[np.bool_]

ALPHA, SIGMA, AFFINE = 100.0, 10.0, 5.0
"""Scale of the random displacements, sigma of the Gaussian that smooths them, and largest shift of
the three points that define the affine part; all in pixels."""


@dataclass(frozen=True, eq=False)
class Field:
    """Where each pixel of a warped image comes from: float32 [H,W] of x and of y, in pixels."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]


def elastic_field(height: int, width: int, strength: float, rng: np.random.Generator) -> Field:
    """Draw an elastic transform: an affine one, then smooth random displacements.

    Strength 1 is the published transform: the displacements have a deviation of 1.6 pixels.
    """
    centre, reach = np.array([width // 2, height // 2]), min(height, width) // 3
    corners = centre + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = corners + strength * rng.uniform(-AFFINE, AFFINE, (3, 2))
    if reach == 0:  # the three points of an image of up to two pixels are the same
        matrix = np.array([[1.0, 0, 0], [0, 1, 0]])
    else:
        matrix = cv2.getAffineTransform(corners.astype(np.float32), moved.astype(np.float32))
    inverse = cv2.invertAffineTransform(matrix)
    noise = rng.uniform(-1, 1, (2, height, width))
    shift_x, shift_y = (ndimage.gaussian_filter(part, SIGMA) for part in noise)
    x = np.arange(width)[None, :] + strength * ALPHA * shift_x
    y = np.arange(height)[:, None] + strength * ALPHA * shift_y
    return Field(
        x=(inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]).astype(np.float32),
        y=(inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]).astype(np.float32),
    )


def warp_image(image: FloatImage, field: Field) -> FloatImage:
    """Return an image warped by a field: bilinear, mirrored at the border."""
    warped = cv2.remap(image, field.x, field.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(warped, dtype=np.float32).reshape(image.shape)


def warp_masks(masks: Masks, field: Field) -> Masks:
    """Return masks, bool [K,H,W], warped as an image is: the nearest pixel, mirrored."""
    warped = [
        cv2.remap(
            mask.astype(np.uint8),
            field.x,
            field.y,
            cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        for mask in masks
    ]
    return np.asarray(warped, dtype=np.bool_).reshape(masks.shape)


def elastic_transform(image: FloatImage, strength: float, rng: np.random.Generator) -> FloatImage:
    """Warp an image by an affine transform and smooth random displacements."""
    return warp_image(image, elastic_field(image.shape[0], image.shape[1], strength, rng))

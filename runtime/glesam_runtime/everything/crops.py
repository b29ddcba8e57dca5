"""Plan where everything-mode searches: the image and crops of it, each with a grid of points.

Layer 0 is the whole image; layer n has 4**n crops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from glesam_runtime.everything.parameters import Parameters

Box = tuple[int, int, int, int]

_NEAR = 20
"""Distance in pixels from a crop's edge within which the edge may have cut off a mask."""


@dataclass(frozen=True)
class Crop:
    """A part of the image that is encoded and searched separately."""

    box: Box
    """x0, y0, x1, y1 in pixels of the image; x1 and y1 are one past the last pixel."""
    layer: int
    """0 is the whole image."""

    @property
    def area(self) -> int:
        """Return the number of pixels."""
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0)


def plan_crops(height: int, width: int, layers: int, overlap_ratio: float) -> list[Crop]:
    """Return the whole image, then the 4**n crops of each layer n, column by column.

    Args:
        height: height of the image in pixels.
        width: width of the image in pixels.
        layers: number of layers beyond the whole image.
        overlap_ratio: overlap in the first layer, as a share of the shorter side.

    Raises:
        InputError: the image is too small for so many layers.
    """
    crops = [Crop((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        side = 2**layer
        overlap = int(overlap_ratio * min(height, width) * (2 / side))
        across, down = _cut(width, side, overlap), _cut(height, side, overlap)
        if min(high - low for low, high in (*across, *down)) < 1:
            raise InputError(
                f"image: {width} x {height} pixels, too small for {layers} layers of crops; "
                f"the maximum is {layer - 1}"
            )
        crops += [Crop((x0, y0, x1, y1), layer) for x0, x1 in across for y0, y1 in down]
    return crops


def near_crop_edge(box: Box, crop: Crop, whole: Crop) -> bool:
    """Return whether a mask's box ends at an edge of its crop that is not an edge of the image.

    Args:
        box: first and last column and row, x0, y0, x1, y1, in pixels of the image.
        crop: the crop in which the mask was found.
        whole: the whole image.
    """
    return any(
        abs(at - edge) <= _NEAR and abs(at - end) > _NEAR
        for at, edge, end in zip(box, crop.box, whole.box, strict=True)
    )


def _cut(length: int, count: int, overlap: int) -> list[tuple[int, int]]:
    """Cut an axis into `count` overlapping parts of equal length; the last may be shorter."""
    part = math.ceil((overlap * (count - 1) + length) / count)
    starts = [(part - overlap) * index for index in range(count)]
    return [(start, min(start + part, length)) for start in starts]


def layer_grids(parameters: Parameters) -> list[NDArray[np.float64]]:
    """Return the points of each layer: [N, 2], (x, y) from 0 to 1 of a crop's width and height.

    Raises:
        InputError: a layer has no points, or `point_grids` does not hold such arrays.
    """
    layers = parameters.crop_n_layers
    if parameters.point_grids is not None:
        return check_grids(parameters.point_grids, layers)
    assert parameters.points_per_side is not None  # exactly one of the two is given
    downscale = parameters.crop_n_points_downscale_factor
    return even_grids(parameters.points_per_side, layers, downscale)


def even_grids(side: int, layers: int, downscale: int) -> list[NDArray[np.float64]]:
    """Return a grid for the image and one for each crop layer: [N, 2], (x, y) from 0 to 1.

    Args:
        side: points along each side of the image.
        layers: number of layers beyond the whole image.
        downscale: layer n has `side` / `downscale`**n points along each side.

    Raises:
        InputError: a layer has no points.
    """
    grids = []
    for layer in range(layers + 1):
        points = int(side / downscale**layer)
        if points < 1:
            raise InputError(
                f"crop_n_points_downscale_factor {downscale}: "
                f"{side} points per side leave none in crop layer {layer}"
            )
        grids.append(even_grid(points))
    return grids


def even_grid(side: int) -> NDArray[np.float64]:
    """Return the centres of side x side equal cells, row by row: [side * side, 2]."""
    margin = 1 / (2 * side)
    axis = np.linspace(margin, 1 - margin, side)
    x, y = np.meshgrid(axis, axis)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def check_grids(grids: Sequence[ArrayLike], layers: int) -> list[NDArray[np.float64]]:
    """Check the caller's own grids and return them as arrays.

    Args:
        grids: an array [N, 2] for each layer, (x, y) from 0 to 1.
        layers: number of layers beyond the whole image.

    Raises:
        InputError: a grid is missing or is not such an array.
    """
    if len(grids) < layers + 1:
        raise InputError(
            f"point_grids: {len(grids)} given, but one for the image and one for each of "
            f"{layers} crop layers is needed"
        )
    return [_check_grid(grid, layer) for layer, grid in enumerate(grids)]


def _check_grid(grid: ArrayLike, layer: int) -> NDArray[np.float64]:
    try:
        points = np.asarray(grid, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"point_grids[{layer}]: not an array of numbers ({error})") from error
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise InputError(
            f"point_grids[{layer}]: shape {list(points.shape)}, but [N, 2] is needed, N >= 1"
        )
    if not ((points >= 0) & (points <= 1)).all():
        raise InputError(f"point_grids[{layer}]: points must lie from 0 to 1 of the crop's size")
    return points

"""Where to look: crops of the image, layer by layer, and a grid of points in each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.everything.parameters import Parameters

Box = tuple[int, int, int, int]

_NEAR = 20
"""Pixels: a box that ends this near to where its crop ends may have been cut off."""


@dataclass(frozen=True)
class Crop:
    """A part of the image that is encoded and searched on its own."""

    box: Box
    """x0, y0, x1, y1 in pixels of the image; x1 and y1 lie one past the last pixel."""
    layer: int
    """0 is the whole image."""

    @property
    def area(self) -> int:
        """Pixels."""
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0)


def plan_crops(height: int, width: int, layers: int, overlap_ratio: float) -> list[Crop]:
    """The whole image, then 4**n crops for each layer n, column by column.

    Args:
        height: the image's, in pixels; likewise `width`.
        width: pixels.
        layers: how many beyond the whole image.
        overlap_ratio: overlap in the first layer, of the shorter side.

    Raises:
        InputError: a crop would hold nothing.
    """
    crops = [Crop((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        side = 2**layer
        overlap = int(overlap_ratio * min(height, width) * (2 / side))
        across, down = _cut(width, side, overlap), _cut(height, side, overlap)
        if min(high - low for low, high in (*across, *down)) < 1:
            raise InputError(
                f"image: {width} x {height} pixels, too few for {layers} layers of crops; "
                f"the most is {layer - 1}"
            )
        crops += [Crop((x0, y0, x1, y1), layer) for x0, x1 in across for y0, y1 in down]
    return crops


def point_grids(parameters: Parameters) -> list[NDArray[np.float64]]:
    """For each layer [N, 2], (x, y) from 0 to 1 of a crop's width and height.

    Raises:
        InputError: a layer without points, or a grid that is not such an array.
    """
    if parameters.point_grids is not None:
        given = len(parameters.point_grids)
        if given < parameters.crop_n_layers + 1:
            raise InputError(
                f"point_grids: {given} given, but one for the image and one for each of "
                f"{parameters.crop_n_layers} crop layers is needed"
            )
        return [_check_grid(grid, layer) for layer, grid in enumerate(parameters.point_grids)]
    assert parameters.points_per_side is not None  # Parameters has seen to it
    grids = []
    for layer in range(parameters.crop_n_layers + 1):
        side = int(parameters.points_per_side / parameters.crop_n_points_downscale_factor**layer)
        if side < 1:
            raise InputError(
                f"crop_n_points_downscale_factor {parameters.crop_n_points_downscale_factor}: "
                f"leaves no point of {parameters.points_per_side} a side in crop layer {layer}"
            )
        grids.append(even_grid(side))
    return grids


def even_grid(side: int) -> NDArray[np.float64]:
    """Points in the middle of side x side equal cells, row by row: [side * side, 2]."""
    margin = 1 / (2 * side)
    axis = np.linspace(margin, 1 - margin, side)
    x, y = np.meshgrid(axis, axis)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def near_crop_edge(box: Box, crop: Crop, whole: Crop) -> bool:
    """Whether a mask's box ends where its crop does but the image does not.

    Args:
        box: first and last column and row, x0, y0, x1, y1, in pixels of the image.
        crop: where the mask was found.
        whole: the whole image.
    """
    return any(
        abs(at - edge) <= _NEAR and abs(at - end) > _NEAR
        for at, edge, end in zip(box, crop.box, whole.box, strict=True)
    )


def _cut(length: int, count: int, overlap: int) -> list[tuple[int, int]]:
    """Cut an axis into `count` parts of one length that overlap; the last may be shorter."""
    part = math.ceil((overlap * (count - 1) + length) / count)
    starts = [(part - overlap) * index for index in range(count)]
    return [(start, min(start + part, length)) for start in starts]


def _check_grid(grid: object, layer: int) -> NDArray[np.float64]:
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

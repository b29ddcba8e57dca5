"""Makes and checks the grids of points that everything-mode uses as prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime.errors import InputError
from glesam_runtime.limits import GRID_POINTS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def layer_grids(
    side: int | None, own: Sequence[ArrayLike] | None, layers: int, downscale: int
) -> list[NDArray[np.float64]]:
    """Return the points of each layer: [N, 2], (x, y) from 0 to 1 of a crop's width and height.

    Args:
        side: points along each side of the image; None if the caller has grids of their own.
        own: the caller's own grids, one for each layer; None to make even ones.
        layers: number of layers beyond the whole image.
        downscale: layer n has `side` / `downscale`**n points along each side.

    Raises:
        InputError: a layer has no points, or `own` are not such arrays.
    """
    if own is not None:
        return check_grids(own, layers)
    assert side is not None, "Parameters requires exactly one of the two"
    return even_grids(side, layers, downscale)


def even_grids(side: int, layers: int, downscale: int) -> list[NDArray[np.float64]]:
    """Return a grid for the image and one for each crop layer: [N, 2], (x, y) from 0 to 1.

    Args:
        side: points along each side of the image.
        layers: number of layers beyond the whole image.
        downscale: layer n has `side` / `downscale`**n points along each side.

    Raises:
        InputError: a layer has no points, or all layers together have too many.
    """
    grids = []
    total = 0
    for layer in range(layers + 1):
        points = int(side // downscale**layer)
        total += points**2
        GRID_POINTS.check(
            total,
            f"points_per_side {side}, crop_n_layers {layers}: {total} points up to layer {layer}",
        )
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

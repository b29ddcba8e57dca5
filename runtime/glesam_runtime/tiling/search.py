"""Find everything in a picture tile by tile, and join what lies across the seams."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime.errors import InputError
from glesam_runtime.everything.crops import Box, Crop
from glesam_runtime.everything.grids import layer_grids
from glesam_runtime.everything.parameters import thresholds
from glesam_runtime.everything.search import (
    Found,
    candidates,
    non_maximum_suppression,
    tidy,
    without_duplicates,
)
from glesam_runtime.masks import mask_to_xywh
from glesam_runtime.rle import count_runs
from glesam_runtime.tiling.joining import Joiner, Piece

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.everything.parameters import Parameters
    from glesam_runtime.manifest import EverythingThresholds
    from glesam_runtime.predictor import GleSamPredictor
    from glesam_runtime.tiling.tiles import Grid
    from glesam_runtime.tiling.windows import Windows


def find_in_tiles(
    predictor: GleSamPredictor,
    windows: Windows,
    grid: Grid,
    parameters: Parameters,
    progress: Callable[[int, int], None] | None = None,
) -> list[Found]:
    """Return the masks of everything in a picture; the list is empty if there are none.

    Each tile is searched with the whole grid of points. One tile is in memory at a time, and the
    logits of the masks of three rows of tiles.

    Args:
        predictor: the predictor to use; its image is reset.
        windows: the picture.
        grid: its tiles.
        parameters: how densely to search a tile and which masks to keep.
        progress: called with how many points of all tiles are done of how many.

    Raises:
        InputError: crop layers are asked for, or a tile cannot be read.
    """
    if parameters.crop_n_layers:
        raise InputError(
            f"crop_n_layers {parameters.crop_n_layers}: tiles take the place of crops; leave it "
            "out, or use smaller tiles"
        )
    keep = thresholds(predictor.bundle.manifest, parameters)
    shares = layer_grids(parameters.points_per_side, parameters.point_grids, 0, 1)[0]
    tiles = list(grid.tiles())
    total = len(tiles) * len(shares)
    done = 0

    def advance(points: int) -> None:
        nonlocal done
        done = min(done + points, total)
        if progress is not None:
            progress(done, total)

    advance(0)
    joiner = Joiner(grid, predictor.bundle.manifest)
    try:
        for row, column, box in tiles:
            predictor.set_image(windows.read(box))
            x0, y0, x1, y1 = box
            seeds = joiner.seeds((row, column), box) - [x0, y0]
            points = np.concatenate([shares * [x1 - x0, y1 - y0], seeds])
            pieces = _search_tile(predictor, (row, column), box, grid, points, parameters, keep)
            joiner.add((row, column), box, pieces)
            advance(len(shares))
    finally:
        predictor.reset_image()
    found = joiner.finish()
    found = without_duplicates(
        found, [one.predicted_iou for one in found], parameters.box_nms_thresh
    )
    if parameters.min_mask_region_area > 0:
        found = tidy(found, grid.height, parameters)
    return found


def _search_tile(
    predictor: GleSamPredictor,
    place: tuple[int, int],
    box: Box,
    grid: Grid,
    points: NDArray[np.float64],
    parameters: Parameters,
    keep: EverythingThresholds,
) -> list[Piece]:
    """Return the masks of a tile, which is the predictor's image, without duplicates."""
    pieces = []
    crop = Crop(box, 0)
    for low_res, iou, (x, y) in candidates(predictor, points, parameters, keep, lambda _: None):
        made = predictor.binarize(low_res, keep.stability_score_offset)
        stability = float(np.float32(made.stability))
        if stability < np.float32(keep.stability_score_thresh):
            continue
        left, top, width, height = mask_to_xywh(made.masks)
        if width == 0:
            continue
        x0, y0 = left + box[0], top + box[1]
        runs = count_runs(
            made.masks[top : top + height, left : left + width], (grid.height, grid.width), (y0, x0)
        )
        if grid.height * grid.width < 1 << 31:
            runs = runs.astype(np.int32)  # half the memory
        found = Found(
            runs,
            (x0, y0, x0 + width - 1, y0 + height - 1),
            iou,
            stability,
            (x + box[0], y + box[1]),
            crop,
        )
        pieces.append(Piece(place, found, low_res.astype(np.float16)))
    kept = non_maximum_suppression(
        [piece.found.box for piece in pieces],
        [piece.found.predicted_iou for piece in pieces],
        parameters.box_nms_thresh,
    )
    return [pieces[index] for index in kept]

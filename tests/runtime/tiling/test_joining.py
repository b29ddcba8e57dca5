"""Masks of neighbouring tiles become one object, without a step at the seam."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from glesam_runtime import masks, open_bundle
from glesam_runtime.everything.crops import Box, Crop
from glesam_runtime.everything.search import Found
from glesam_runtime.image import geometry_of
from glesam_runtime.manifest import Manifest
from glesam_runtime.rle import count_runs, run_box, runs_to_mask
from glesam_runtime.tiling.joining import Joiner, Piece
from glesam_runtime.tiling.tiles import Grid

HEIGHT, WIDTH, TILE, OVERLAP = 400, 700, 256, 64
Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Logits at rows and columns of the picture."""


def disc(x: float, y: float, radius: float) -> Shape:
    return lambda rows, columns: radius - np.hypot(columns - x, rows - y)


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return open_bundle().manifest


def piece(manifest: Manifest, place: tuple[int, int], box: Box, shape: Shape) -> Piece | None:
    """Return what a model that knows the shape finds in a tile."""
    x0, y0, x1, y1 = box
    size = manifest.preprocessing.image_size
    side, scale = size // 4, (x1 - x0) / (size // 4)
    at = (np.arange(side) + 0.5) * scale - 0.5
    low_res = shape(at[:, None] + y0, at[None] + x0).astype(np.float32)
    geometry = geometry_of(y1 - y0, x1 - x0, size)
    mask = masks.binarize(low_res, geometry, manifest.postprocessing).masks
    if not mask.any():
        return None
    runs = count_runs(mask, (HEIGHT, WIDTH), (y0, x0))
    found = Found(runs, run_box(runs, HEIGHT), 0.9, 0.95, (0, 0), Crop(box, 0))
    return Piece(place, found, low_res.astype(np.float16))


def joined(manifest: Manifest, shapes: Callable[[tuple[int, int]], list[Shape]]) -> list[Found]:
    grid = Grid(HEIGHT, WIDTH, TILE, OVERLAP)
    joiner = Joiner(grid, manifest)
    for row, column, box in grid.tiles():
        made = [piece(manifest, (row, column), box, shape) for shape in shapes((row, column))]
        joiner.add((row, column), box, [one for one in made if one is not None])
    return joiner.finish()


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return np.count_nonzero(first & second) / np.count_nonzero(first | second)


def test_the_grid_has_seams_to_join_across() -> None:
    grid = Grid(HEIGHT, WIDTH, TILE, OVERLAP)
    assert len(grid.columns) == 4
    assert len(grid.rows) == 2


@pytest.mark.parametrize(
    ("x", "y", "radius"),
    [
        (100, 100, 40),  # in one tile
        (235, 100, 60),  # across a seam
        (215, 200, 20),  # in the corner that four tiles share
        (350, 200, 180),  # in all tiles
        (690, 390, 80),  # cut by the picture
    ],
)
def test_an_object_is_found_once_and_whole(
    manifest: Manifest, x: float, y: float, radius: float
) -> None:
    shape = disc(x, y, radius)
    (found,) = joined(manifest, lambda _: [shape])
    truth = shape(np.arange(HEIGHT)[:, None], np.arange(WIDTH)[None]) > 0
    assert iou(runs_to_mask(found.runs, HEIGHT, WIDTH), truth) > 0.98
    assert found.box == run_box(found.runs, HEIGHT)
    assert found.predicted_iou == pytest.approx(0.9)


def test_objects_that_differ_in_the_overlap_stay_apart(manifest: Manifest) -> None:
    shapes = [disc(150, 100, 55), disc(268, 100, 55), disc(350, 300, 90)]
    found = joined(manifest, lambda _: shapes)
    assert len(found) == 3


def test_two_tiles_that_disagree_a_little_are_joined_without_a_step(manifest: Manifest) -> None:
    """Give every other tile an edge that is 6 pixels lower, as models do."""

    def edge(shift: float) -> Shape:
        return lambda rows, columns: (rows - 150 - shift) + 0 * columns

    (found,) = joined(manifest, lambda place: [edge(6.0 * (place[1] % 2))])
    mask = runs_to_mask(found.runs, HEIGHT, WIDTH)
    top = np.argmax(mask, axis=0)
    assert top.min() == pytest.approx(150, abs=2)
    assert top.max() == pytest.approx(156, abs=2)
    assert np.abs(np.diff(top)).max() <= 1
    assert mask[200:].all()


def test_a_rest_that_a_border_cuts_off_is_dropped(manifest: Manifest) -> None:
    """Only the tile whose border cuts the object finds it, within the overlap."""
    grid = Grid(HEIGHT, WIDTH, TILE, OVERLAP)
    start = grid.columns[1][0]
    shape = disc(start - 10, 100, 30)
    assert joined(manifest, lambda place: [shape] if place == (0, 1) else []) == []
    assert len(joined(manifest, lambda place: [shape] if place == (0, 0) else [])) == 1


def test_a_neighbour_is_asked_where_a_border_cuts_a_mask_off(manifest: Manifest) -> None:
    grid = Grid(HEIGHT, WIDTH, TILE, OVERLAP)
    joiner = Joiner(grid, manifest)
    (_, _, first), (row, column, second), *_ = grid.tiles()
    cut, whole = disc(235, 100, 60), disc(60, 60, 30)
    pieces = [piece(manifest, (0, 0), first, shape) for shape in (cut, whole)]
    joiner.add((0, 0), first, [one for one in pieces if one is not None])
    ((x, y),) = joiner.seeds((row, column), second)
    assert second[0] <= x < first[2]
    assert y == pytest.approx(100, abs=4)

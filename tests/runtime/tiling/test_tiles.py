"""Tiles cover a picture, and a prompt goes to the window that shows most around it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glesam_runtime.errors import InputError
from glesam_runtime.tiling.tiles import Grid, shared, weights


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    tile = draw(st.integers(64, 300))
    sides = st.integers(1, 1500)
    return Grid(draw(sides), draw(sides), tile, draw(st.integers(0, tile // 2)))


@given(grids())
def test_every_pixel_lies_in_a_tile_and_neighbours_overlap(grid: Grid) -> None:
    seen = np.zeros((grid.height, grid.width), np.uint16)
    boxes = [box for _, _, box in grid.tiles()]
    for x0, y0, x1, y1 in boxes:
        assert 0 <= x0 < x1 <= grid.width
        assert 0 <= y0 < y1 <= grid.height
        assert (x1 - x0, y1 - y0) == (min(grid.tile, grid.width), min(grid.tile, grid.height))
        seen[y0:y1, x0:x1] += 1
    assert seen.min() >= 1
    for parts in (grid.columns, grid.rows):
        for (_, end), (start, _) in itertools.pairwise(parts):
            assert end - start >= grid.overlap


@given(grids(), st.data())
def test_a_point_goes_to_the_tile_whose_inner_borders_are_farthest(
    grid: Grid, data: st.DataObject
) -> None:
    x = data.draw(st.floats(0, grid.width))
    y = data.draw(st.floats(0, grid.height))

    def room(box: tuple[int, int, int, int]) -> float:
        x0, y0, x1, y1 = box
        inner = [x - x0] * (x0 > 0) + [x1 - x] * (x1 < grid.width)
        inner += [y - y0] * (y0 > 0) + [y1 - y] * (y1 < grid.height)
        return min(inner, default=np.inf)

    chosen = grid.window_for((x, y, x, y))
    boxes = [box for _, _, box in grid.tiles()]
    assert chosen in boxes
    assert room(chosen) == max(map(room, boxes))
    assert room(chosen) >= grid.overlap // 2


@given(grids(), st.data())
def test_a_box_lies_in_its_window(grid: Grid, data: st.DataObject) -> None:
    x0, x1 = sorted(data.draw(st.tuples(*[st.floats(0, grid.width)] * 2)))
    y0, y1 = sorted(data.draw(st.tuples(*[st.floats(0, grid.height)] * 2)))
    left, top, right, bottom = grid.window_for((x0, y0, x1, y1))
    assert 0 <= left < right <= grid.width
    assert 0 <= top < bottom <= grid.height
    assert left <= x0 + 0.5
    assert x1 <= right + 0.5
    assert top <= y0 + 0.5
    assert y1 <= bottom + 0.5
    if max(x1 - x0, y1 - y0) <= grid.tile:
        assert right - left <= grid.tile
        assert bottom - top <= grid.tile


def test_a_box_across_a_seam_gets_a_window_of_its_own() -> None:
    grid = Grid(1000, 1000, 400, 100)
    assert grid.columns == [(0, 400), (300, 700), (600, 1000)]
    assert grid.window_for((250, 50, 450, 150)) == (150, 0, 550, 400)
    assert grid.window_for((310, 300, 690, 380)) == (300, 140, 700, 540)
    x0, y0, x1, y1 = grid.window_for((100, 200, 900, 500))
    assert (x0, x1) == (0, 1000)
    assert y1 - y0 == 1000


@given(grids())
def test_the_weights_of_neighbours_add_up_to_one_along_the_seam(grid: Grid) -> None:
    (_, _, first), *rest = list(grid.tiles())
    beside = next((box for row, column, box in rest if (row, column) == (0, 1)), None)
    overlap = beside and shared(first, beside)
    if beside is None or overlap is None:
        return
    total = weights(first, [beside], overlap) + weights(beside, [first], overlap)
    width = overlap[2] - overlap[0]
    assert total[:, 1:-1] == pytest.approx(1, abs=2e-3 + 1e-3 * width / width)
    assert weights(first, [beside], overlap)[0, -1] <= 0.5 / width + 1e-3


@pytest.mark.parametrize(
    ("tile", "overlap", "words"),
    [
        (63, 0, "tile 63: at least 64 pixels are needed"),
        (128, 65, "overlap 65: must be 0 to 64, half a tile"),
        (128, -1, "overlap -1: must be 0 to 64"),
    ],
)
def test_tiles_that_cannot_cover_a_picture_are_refused(tile: int, overlap: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Grid(500, 500, tile, overlap)


def test_too_many_tiles_are_refused() -> None:
    with pytest.raises(InputError, match="GLESAM_MAX_CROPS"):
        Grid(1 << 17, 1 << 17, 64, 0)

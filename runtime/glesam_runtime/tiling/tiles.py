"""Cut a picture into tiles that overlap, and choose the window in which a prompt is looked at.

All boxes are x0, y0, x1, y1 in pixels of the picture; x1 and y1 are one past the last pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime.everything.crops import Box
from glesam_runtime.limits import CROPS
from glesam_runtime.tiling.sides import check_tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MARGIN = 0.1
"""The share of a window's side that is left on each side of what a prompt names."""


@dataclass(frozen=True)
class Grid:
    """The tiles of a picture: equal in size, evenly spaced, and together they cover it."""

    height: int
    width: int
    tile: int
    """Side of a tile in pixels. A picture with a shorter side has one tile along that side."""
    overlap: int
    """Pixels that neighbouring tiles share at least."""

    def __post_init__(self) -> None:
        check_tiles(self.tile, self.overlap)
        count = len(self.columns) * len(self.rows)
        CROPS.check(count, f"tile {self.tile} with overlap {self.overlap}: {count} tiles")

    @property
    def columns(self) -> list[tuple[int, int]]:
        """Return the first column of each column of tiles, and the one past its last."""
        return _cut(self.width, self.tile, self.overlap)

    @property
    def rows(self) -> list[tuple[int, int]]:
        """Return the first row of each row of tiles, and the one past its last."""
        return _cut(self.height, self.tile, self.overlap)

    def tiles(self) -> Iterator[tuple[int, int, Box]]:
        """Yield the row, the column and the box of each tile, row by row."""
        columns = self.columns
        for row, (y0, y1) in enumerate(self.rows):
            for column, (x0, x1) in enumerate(columns):
                yield row, column, (x0, y0, x1, y1)

    def window_for(self, extent: tuple[float, float, float, float]) -> Box:
        """Return the window in which to look at what a prompt names.

        - Among the tiles that contain the extent it is the one whose inner borders are farthest
          from it. An inner border is one that is not a border of the picture.
        - If none of them leaves a quarter of the overlap around the extent, because it lies across
          a seam or is larger than a tile, it is a window of its own around the extent: as large as
          a tile, or larger (`window_around`).

        Args:
            extent: the bounding box of a prompt's points and box.
        """
        x0, y0, x1, y1 = self._inside(extent)
        left, across = _farthest(self.columns, x0, x1, self.width)
        top, down = _farthest(self.rows, y0, y1, self.height)
        if min(across, down) >= self.overlap // 4:
            (first, last), (upper, lower) = left, top
            return first, upper, last, lower
        return self.window_around(extent, self.tile)

    def window_around(self, extent: tuple[float, float, float, float], side: int) -> Box:
        """Return a square window around an extent, moved into the picture and cut at its borders.

        Args:
            extent: what the window shows, with a margin of a tenth of its side where it can.
            side: the least side in pixels.
        """
        x0, y0, x1, y1 = self._inside(extent)
        wanted = max(x1 - x0, y1 - y0)
        if wanted > side:
            side = math.ceil(wanted / (1 - 2 * _MARGIN))
        left, right = _centred((x0 + x1) / 2, side, self.width)
        top, bottom = _centred((y0 + y1) / 2, side, self.height)
        return left, top, right, bottom

    def _inside(
        self, extent: tuple[float, float, float, float]
    ) -> tuple[float, float, float, float]:
        x0, y0, x1, y1 = extent
        across, down = (0, self.width), (0, self.height)
        return (
            *(float(np.clip(x0, *across)), float(np.clip(y0, *down))),
            *(float(np.clip(x1, *across)), float(np.clip(y1, *down))),
        )


def weights(box: Box, others: list[Box], region: Box) -> NDArray[np.float32]:
    """Return the weight of a tile at each pixel of a region: float32 [h, w], above 0 to 1.

    It is 1 where no other tile lies, and falls to almost 0 at a border that lies in another tile,
    so that a blend of tiles has no step there.

    Args:
        box: the tile.
        others: the tiles that it is blended with.
        region: a part of the tile.
    """
    ramps = []
    for axis in (0, 1):
        low, high = box[axis], box[axis + 2]
        at = np.arange(region[axis], region[axis + 2], dtype=np.float32) + np.float32(0.5)
        before = max((each[axis + 2] - low for each in others if each[axis] < low), default=0)
        after = max((high - each[axis] for each in others if each[axis + 2] > high), default=0)
        ramp = np.ones_like(at)
        if before > 0:
            ramp = np.minimum(ramp, (at - low) / before)
        if after > 0:
            ramp = np.minimum(ramp, (high - at) / after)
        ramps.append(np.clip(ramp, 1e-3, 1))
    return np.asarray(np.outer(ramps[1], ramps[0]), np.float32)


def shared(first: Box, second: Box) -> Box | None:
    """Return the box that two boxes share, or None."""
    x0, y0 = max(first[0], second[0]), max(first[1], second[1])
    x1, y1 = min(first[2], second[2]), min(first[3], second[3])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _cut(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Cut an axis into tiles of equal length, evenly spaced, that share at least `overlap`."""
    if length <= tile:
        return [(0, length)]
    count = math.ceil((length - overlap) / (tile - overlap))
    starts = [(length - tile) * index // (count - 1) for index in range(count)]
    return [(start, start + tile) for start in starts]


def _farthest(
    parts: list[tuple[int, int]], low: float, high: float, length: int
) -> tuple[tuple[int, int], float]:
    """Return the part whose inner ends are farthest from `low` to `high`, and that distance.

    The distance is negative if no part contains them.
    """

    def distance(part: tuple[int, int]) -> float:
        before = low - part[0] if part[0] > 0 else math.inf
        after = part[1] - high if part[1] < length else math.inf
        return min(before, after)

    best = max(parts, key=distance)
    return best, distance(best)


def _centred(centre: float, side: int, length: int) -> tuple[int, int]:
    """Return a part of an axis around a centre, moved into the axis."""
    if side >= length:
        return 0, length
    start = int(np.clip(round(centre - side / 2), 0, length - side))
    return start, start + side

"""Join the masks of neighbouring tiles that show one object, without a step at the seam.

Two masks of neighbouring tiles are one object if they agree where their tiles overlap. Their
logits are then blended across the overlap, with weights that fall to zero at the border of a tile,
so that no border is visible in the joined mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime import masks
from glesam_runtime.everything.crops import NEAR, Box, Crop
from glesam_runtime.everything.search import Found
from glesam_runtime.image import geometry_of
from glesam_runtime.rle import (
    join_spans,
    mask_spans,
    run_area,
    run_box,
    runs_in_window,
    unite_spans,
)
from glesam_runtime.tiling.tiles import Grid, shared, weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.manifest import Manifest
    from glesam_runtime.rle import Spans

AGREEMENT = 0.5
"""IoU within the overlap of two tiles from which two masks are one object."""


@dataclass(eq=False)
class Piece:
    """A mask that was found in a tile: an object, or the part of one that the tile shows."""

    place: tuple[int, int]
    """Row and column of the tile."""
    found: Found
    """The mask in pixels of the picture; `crop` is the tile."""
    low_res: NDArray[np.float16] | None
    """Logits [S/4, S/4], kept until the masks of the tiles around are known."""
    group: list[Piece] = field(default_factory=list)
    """All pieces of the object, of one tile each."""
    blended: Spans | None = None
    """The spans of the blended logits in the tile, if the object has several pieces."""

    def __post_init__(self) -> None:
        self.group.append(self)

    @property
    def tile(self) -> Box:
        """Return the box of the tile."""
        return self.found.crop.box


class Joiner:
    """Takes the masks of one tile after another, row by row, and joins them."""

    def __init__(self, grid: Grid, manifest: Manifest) -> None:
        self._grid, self._manifest = grid, manifest
        self._tiles: dict[tuple[int, int], list[Piece]] = {}
        self._done: list[Piece] = []

    def seeds(self, place: tuple[int, int], tile: Box) -> NDArray[np.float64]:
        """Return points [N, 2], in pixels of the picture, at which to ask a tile.

        They lie on the masks of the tiles before it that end at a border within this tile, so that
        the rest of such a mask is asked for.
        """
        points = []
        for pieces, overlap in self._neighbours(place, tile):
            for piece in pieces:
                if not _cut_off(piece, overlap):
                    continue
                rows, columns = np.nonzero(runs_in_window(piece.found.runs, self._height, overlap))
                if rows.size:
                    far = (rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2
                    nearest = int(np.argmin(far))
                    points.append((columns[nearest] + overlap[0], rows[nearest] + overlap[1]))
        return np.asarray(points, np.float64).reshape(-1, 2)

    def add(self, place: tuple[int, int], tile: Box, pieces: list[Piece]) -> None:
        """Take the masks of a tile, and join them with those of the tiles before it."""
        self._tiles[place] = pieces
        for others, overlap in self._neighbours(place, tile):
            self._match(others, pieces, overlap)
        if place[1] == len(self._grid.columns) - 1:  # the last tile of its row
            self._finish_row(place[0] - 1)

    def finish(self) -> list[Found]:
        """Return the joined masks of all tiles."""
        self._finish_row(len(self._grid.rows) - 1)
        for place in sorted(self._tiles):
            self._done += self._tiles[place]
        found, seen = [], set()
        for piece in self._done:
            if id(piece.group) in seen:
                continue
            seen.add(id(piece.group))
            if len(piece.group) > 1:
                found.append(self._united(piece.group))
            elif not self._is_fragment(piece):
                found.append(piece.found)
        return found

    @property
    def _height(self) -> int:
        return self._grid.height

    def _neighbours(self, place: tuple[int, int], tile: Box) -> list[tuple[list[Piece], Box]]:
        """Return the masks of the tile to the left and of the one above, and each overlap."""
        row, column = place
        known = []
        for other in ((row, column - 1), (row - 1, column)):
            pieces = self._tiles.get(other)
            overlap = shared(tile, _box_of(self._grid, other)) if pieces else None
            if pieces and overlap:
                known.append((pieces, overlap))
        return known

    def _match(self, before: list[Piece], here: list[Piece], overlap: Box) -> None:
        """Join the pairs that agree in the overlap, the best first; each piece once."""
        ious = _ious(
            [runs_in_window(piece.found.runs, self._height, overlap) for piece in before],
            [runs_in_window(piece.found.runs, self._height, overlap) for piece in here],
        )
        used: set[int] = set()
        order = np.argsort(-ious, axis=None, kind="stable")
        for first, second in zip(*np.unravel_index(order, ious.shape), strict=True):
            if ious[first, second] < AGREEMENT:
                break
            one, other = before[first], here[second]
            if id(one) in used or id(other) in used or not _may_join(one, other):
                continue
            used |= {id(one), id(other)}
            one.group.extend(other.group)
            for member in other.group:
                member.group = one.group

    def _finish_row(self, row: int) -> None:
        """Blend the pieces of a row, whose neighbours are all known, and forget older logits."""
        for place, pieces in self._tiles.items():
            if place[0] == row:
                for piece in pieces:
                    if len(piece.group) > 1:
                        piece.blended = self._blend(piece)
        for place in [place for place in self._tiles if place[0] < row]:
            for piece in self._tiles.pop(place):
                piece.low_res = None
                self._done.append(piece)

    def _blend(self, piece: Piece) -> Spans:
        """Return the spans of the blended mask in a piece's tile."""
        near = [other for other in piece.group if shared(other.tile, piece.tile)]
        boxes = np.asarray([_end_exclusive(other.found.box) for other in near])
        reach = (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
        region = shared(piece.tile, reach)
        if region is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        x0, y0, x1, y1 = region
        total = np.zeros((y1 - y0, x1 - x0), np.float32)
        weight = np.zeros_like(total)
        for other in near:
            part = shared(other.tile, region)
            if part is None or other.low_res is None:
                continue
            place = np.s_[part[1] - y0 : part[3] - y0, part[0] - x0 : part[2] - x0]
            share = weights(other.tile, [each.tile for each in near if each is not other], part)
            total[place] += share * self._logits(other, part)
            weight[place] += share
        threshold = self._manifest.postprocessing.mask_threshold
        return mask_spans(total > threshold * weight, self._height, (y0, x0))

    def _logits(self, piece: Piece, part: Box) -> NDArray[np.float32]:
        """Return the logits of a piece in a part of its tile."""
        assert piece.low_res is not None
        x0, y0, x1, y1 = piece.tile
        rules = self._manifest.preprocessing
        geometry = geometry_of(y1 - y0, x1 - x0, rules.image_size, rules.resize)
        low_res = piece.low_res.astype(np.float32)
        whole = masks.upscale(low_res, geometry, self._manifest.postprocessing)
        return whole[part[1] - y0 : part[3] - y0, part[0] - x0 : part[2] - x0]

    def _united(self, group: Sequence[Piece]) -> Found:
        """Return the object of several pieces; its scores are the means by area."""
        spans = unite_spans([piece.blended for piece in group if piece.blended is not None])
        runs = join_spans(spans, self._grid.height * self._grid.width)
        areas = np.asarray([run_area(piece.found.runs) for piece in group], np.float64)
        shares = areas / max(areas.sum(), 1)
        best = group[int(np.argmax(areas))]
        tiles = np.asarray([piece.tile for piece in group])
        box = (*tiles[:, :2].min(axis=0).tolist(), *tiles[:, 2:].max(axis=0).tolist())
        return replace(
            best.found,
            runs=runs.astype(best.found.runs.dtype),
            box=run_box(runs, self._height),
            predicted_iou=float(shares @ [piece.found.predicted_iou for piece in group]),
            stability=float(shares @ [piece.found.stability for piece in group]),
            crop=Crop(box, 0),
        )

    def _is_fragment(self, piece: Piece) -> bool:
        """Return whether a piece is cut off by its tile and lies in a neighbour that shows more.

        The neighbour did not find it, so it is the rest of something else.
        """
        row, column = piece.place
        x0, y0, x1, y1 = _end_exclusive(piece.found.box)
        for other in ((row, column - 1), (row, column + 1), (row - 1, column), (row + 1, column)):
            if not (0 <= other[0] < len(self._grid.rows)):
                continue
            if not (0 <= other[1] < len(self._grid.columns)):
                continue
            overlap = shared(piece.tile, _box_of(self._grid, other))
            if overlap and _cut_off(piece, overlap):
                inside = shared((x0, y0, x1, y1), overlap)
                if inside == (x0, y0, x1, y1):
                    return True
        return False


def agreement(first: Found, second: Found, height: int) -> float:
    """Return the IoU of two masks where the crop of the first lies; height is the picture's."""
    one, other = (runs_in_window(each.runs, height, first.crop.box) for each in (first, second))
    both, either = int(np.count_nonzero(one & other)), int(np.count_nonzero(one | other))
    return both / max(1, either)


def _box_of(grid: Grid, place: tuple[int, int]) -> Box:
    (y0, y1), (x0, x1) = grid.rows[place[0]], grid.columns[place[1]]
    return x0, y0, x1, y1


def _end_exclusive(box: Box) -> Box:
    """Return a box of `Found`, whose last column and row belong to it, as x1 and y1 behind it."""
    return box[0], box[1], box[2] + 1, box[3] + 1


def _may_join(one: Piece, other: Piece) -> bool:
    """Return whether two pieces have no tile in common with the other's object."""
    if one.group is other.group:
        return False
    return not {piece.place for piece in one.group} & {piece.place for piece in other.group}


def _cut_off(piece: Piece, overlap: Box) -> bool:
    """Return whether a piece ends at that border of its tile that lies in a neighbour's tile.

    Args:
        piece: the piece.
        overlap: what its tile and the neighbour's share.
    """
    tile, box = piece.tile, _end_exclusive(piece.found.box)
    for axis in (0, 1):
        low, high = axis, axis + 2
        if overlap[low] > tile[low] and overlap[high] == tile[high]:
            return tile[high] - box[high] <= NEAR
        if overlap[high] < tile[high] and overlap[low] == tile[low]:
            return box[low] - tile[low] <= NEAR
    return False


def _ious(
    first: Sequence[NDArray[np.bool_]], second: Sequence[NDArray[np.bool_]]
) -> NDArray[np.float64]:
    """Return the IoU of each mask of one list with each of another: [N, M]."""
    if not (first and second):
        return np.zeros((len(first), len(second)))
    one, other = (
        np.stack(each).reshape(len(each), -1).astype(np.float32) for each in (first, second)
    )
    both = (one @ other.T).astype(np.float64)
    either = one.sum(axis=1)[:, None] + other.sum(axis=1)[None] - both
    return np.asarray(both / np.maximum(either, 1))

"""Remove small holes and islands from a mask, on its run lengths.

Pixels that touch at a side or a corner belong to one region, in the mask and in the background, as
in segment_anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime.rle import invert_runs, join_spans, run_spans, split_at_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.rle import RunLengths, Spans


def fill_small_holes(runs: RunLengths, height: int, min_area: float) -> tuple[RunLengths, bool]:
    """Fill each hole that has fewer pixels than `min_area`.

    Args:
        runs: the runs of a mask.
        height: height of the mask in pixels.
        min_area: least area of a hole that stays, in pixels.

    Returns:
        The new runs, and whether anything changed.
    """
    outside, changed = _drop_small(invert_runs(runs), height, min_area, keep_largest=False)
    return (invert_runs(outside), True) if changed else (runs, False)


def remove_small_islands(runs: RunLengths, height: int, min_area: float) -> tuple[RunLengths, bool]:
    """Remove each region with fewer pixels than `min_area`; if all are smaller, keep the largest.

    Arguments and results are those of `fill_small_holes`.
    """
    return _drop_small(runs, height, min_area, keep_largest=True)


def _drop_small(
    runs: RunLengths, height: int, min_area: float, *, keep_largest: bool
) -> tuple[RunLengths, bool]:
    pieces = split_at_columns(run_spans(runs), height)
    starts, ends = pieces
    region = _regions(pieces, height)
    areas = np.bincount(region, weights=ends - starts)[region]
    keep = areas >= min_area
    if keep.all():
        return runs, False
    pixels = int(runs.sum())
    if keep_largest and not keep.any():
        keep = region == region[_largest(pieces, areas, height, pixels // height)]
    return join_spans((starts[keep], ends[keep]), pixels), True


def _largest(pieces: Spans, areas: NDArray[Any], height: int, width: int) -> int:
    """Return the index of a piece of the largest region.

    Among the largest regions of equal area, it takes the first that a row-by-row scan in blocks of
    2 x 2 pixels meets. OpenCV numbers regions in that order, and segment_anything keeps the first.
    """
    column, row = np.divmod(pieces[0], height)
    met = (row // 2) * (width // 2 + 1) + column // 2
    return int(np.lexsort((met, -areas))[0])


def _regions(pieces: Spans, height: int) -> NDArray[np.int64]:
    """Return for each piece the smallest index of a piece in its region."""
    first, second = _touching(pieces, height)
    root = np.arange(len(pieces[0]))
    while True:
        one, other = root[first], root[second]
        apart = one != other
        if not apart.any():
            return root
        first, second, one, other = first[apart], second[apart], one[apart], other[apart]
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(above := root[root], root):
            root = above


def _touching(pieces: Spans, height: int) -> Spans:
    """Return the pairs of pieces in neighbouring columns that touch, as two index arrays."""
    starts, ends = pieces
    # With two empty rows between columns, a piece shifted by one column only meets pieces of the
    # column that it is shifted to.
    column = starts // height
    starts, ends = starts + 2 * column, ends + 2 * column
    step = height + 2
    begin = np.searchsorted(ends, starts + step, side="left")
    stop = np.searchsorted(starts, ends + step, side="right")
    count = np.maximum(stop - begin, 0)
    first = np.repeat(np.arange(len(starts)), count)
    offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return first, np.repeat(begin, count) + offset

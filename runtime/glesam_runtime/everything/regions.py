"""Holes and islands of a mask too small to be meant, found on its runs alone.

Two pixels that touch at a side or a corner belong to one region, of the mask and of the background
alike: segment_anything's rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime.runs import complement, join_spans, spans_of, split_at_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.runs import Runs, Spans


def fill_small_holes(runs: Runs, height: int, min_area: float) -> tuple[Runs, bool]:
    """Fill the background's regions of fewer pixels than `min_area`.

    Args:
        runs: of a mask.
        height: the mask's, in pixels.
        min_area: pixels.

    Returns:
        The new runs, and whether anything changed.
    """
    outside, changed = _drop_small(complement(runs), height, min_area, keep_largest=False)
    return (complement(outside), True) if changed else (runs, False)


def remove_small_islands(runs: Runs, height: int, min_area: float) -> tuple[Runs, bool]:
    """Remove the mask's regions of fewer pixels than `min_area`, but the largest if all are.

    Arguments and result are those of `fill_small_holes`.
    """
    return _drop_small(runs, height, min_area, keep_largest=True)


def _drop_small(
    runs: Runs, height: int, min_area: float, *, keep_largest: bool
) -> tuple[Runs, bool]:
    pieces = split_at_columns(spans_of(runs), height)
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
    """A piece of the largest region; of equal ones the first met in blocks of 2 x 2, row by row.

    OpenCV numbers regions in that order, and segment_anything keeps the first.
    """
    column, row = np.divmod(pieces[0], height)
    met = (row // 2) * (width // 2 + 1) + column // 2
    return int(np.lexsort((met, -areas))[0])


def _regions(pieces: Spans, height: int) -> NDArray[np.int64]:
    """For each piece the smallest index of a piece of its region."""
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
    """Pairs of pieces in neighbouring columns that share a side or a corner: two index arrays."""
    starts, ends = pieces
    # Two rows between columns: a piece moved over by one column meets pieces of that one only.
    column = starts // height
    starts, ends = starts + 2 * column, ends + 2 * column
    step = height + 2
    begin = np.searchsorted(ends, starts + step, side="left")
    stop = np.searchsorted(starts, ends + step, side="right")
    count = np.maximum(stop - begin, 0)
    first = np.repeat(np.arange(len(starts)), count)
    offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return first, np.repeat(begin, count) + offset

"""A mask as the lengths of its runs: small to keep, and all that area, box and RLE need.

Runs are counted down the columns and alternate, starting with background (a first run of 0 where
the first pixel belongs to the mask), as COCO has them. A span is a run of the mask itself, as the
positions of its first pixel and of the first one after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Runs: TypeAlias = NDArray[np.integer]
    Spans: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]


def count_runs(
    mask: NDArray[np.bool_],
    frame: tuple[int, int] | None = None,
    corner: tuple[int, int] = (0, 0),
) -> NDArray[np.int64]:
    """Runs of a mask [h, w], or of a larger frame that is background around it.

    Args:
        mask: [h, w].
        frame: (H, W) of the frame; None is the mask's own size.
        corner: (top, left) of the mask in the frame.
    """
    height, width = mask.shape
    frame_height, frame_width = frame or mask.shape
    # A line of background above and below each column: no run reaches into the next.
    columns = np.zeros((width, height + 2), np.bool_)
    columns[:, 1:-1] = mask.T
    flat = columns.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    column, row = np.divmod(edges, height + 2)
    top, left = corner
    positions = (column + left) * frame_height + row - 1 + top
    return join_spans((positions[::2], positions[1::2]), frame_height * frame_width)


def runs_to_mask(runs: Runs | list[int], height: int, width: int) -> NDArray[np.bool_]:
    """The mask [H, W] of runs that fill it."""
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return pixels.reshape((height, width), order="F")


def area_of(runs: Runs) -> int:
    """Pixels in the mask."""
    return int(runs[1::2].sum())


def box_of(runs: Runs, height: int) -> tuple[int, int, int, int]:
    """First and last column and row, as x0, y0, x1, y1; zeros for an empty mask.

    Args:
        runs: of a mask.
        height: of the mask.
    """
    starts, ends = split_at_columns(spans_of(runs), height)
    if starts.size == 0:
        return 0, 0, 0, 0
    rows, last_rows = starts % height, (ends - 1) % height
    return (
        int(starts[0]) // height,
        int(rows.min()),
        int(ends[-1] - 1) // height,
        int(last_rows.max()),
    )


def spans_of(runs: Runs) -> Spans:
    """Starts and ends of the mask's own runs, in order."""
    bounds = np.cumsum(runs, dtype=np.int64)
    ends = bounds[1::2]
    return bounds[::2][: len(ends)], ends


def split_at_columns(spans: Spans, height: int) -> Spans:
    """Cut spans so that none reaches over the end of a column."""
    starts, ends = spans
    first, last = starts // height, (ends - 1) // height
    pieces = last - first + 1
    # Of each span its pieces' columns: 0, 1, 2 ... added to its first.
    offset = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    column = np.repeat(first, pieces) + offset
    return (
        np.maximum(np.repeat(starts, pieces), column * height),
        np.minimum(np.repeat(ends, pieces), (column + 1) * height),
    )


def join_spans(spans: Spans, pixels: int) -> NDArray[np.int64]:
    """Runs of a mask of so many pixels from spans in order, which may touch."""
    starts, ends = spans
    apart = starts[1:] != ends[:-1]
    bounds = np.empty(2 * (np.count_nonzero(apart) + bool(starts.size)), np.int64)
    bounds[::2] = np.concatenate([starts[:1], starts[1:][apart]])
    bounds[1::2] = np.concatenate([ends[:-1][apart], ends[-1:]])
    runs = np.diff(bounds, prepend=0, append=pixels)
    return runs if runs[-1] or runs.size == 1 else runs[:-1]


def complement(runs: Runs) -> Runs:
    """Runs of what the mask leaves out."""
    return runs[1:] if runs[0] == 0 else np.concatenate([np.zeros(1, runs.dtype), runs])

"""Outline a mask along the edges of its pixels, so that the outline says exactly the mask.

The corners of the outline are the grid points where the four pixels around them do not form
straight edges. Each corner has one horizontal and one vertical edge; a point where two pixels touch
diagonally is two corners. Sorted by row, the corners are the ends of the horizontal edges two by
two, and sorted by column those of the vertical edges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from glesam_serving.problems import ProblemError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_CORNERS = 200_000
"""The largest outline: 4 MB of JSON. Only a mask of noise has more."""


def polygons_of(mask: NDArray[np.bool_]) -> list[list[list[float]]]:
    """Return the rings [x, y] of a mask's outlines and holes, in pixels.

    The even-odd rule fills them to the mask, whatever their order and direction.

    Raises:
        ProblemError: the outline has more corners than an answer may hold.
    """
    framed = np.pad(mask, 1)
    above = framed[:-1, :-1] ^ framed[:-1, 1:]
    below = framed[1:, :-1] ^ framed[1:, 1:]
    left = framed[:-1, :-1] ^ framed[1:, :-1]
    # A grid point is a corner if a vertical edge ends there: the edges above and below differ, or
    # both are there and cross a horizontal one.
    single = above ^ below
    double = above & below & left
    count = int(np.count_nonzero(single)) + 2 * int(np.count_nonzero(double))
    if count > _MAX_CORNERS:
        raise ProblemError(
            422,
            f"polygons: the outline of a mask has {count} corners, more than {_MAX_CORNERS}; ask "
            "for rle instead",
        )
    # At a double corner the first copy has the edges to the left and above or below, the second
    # those to the right. Which of the two vertical edges goes with the left one depends on nothing
    # that even-odd filling sees, so the first copy takes the edge above.
    y1, x1 = np.nonzero(single)
    y2, x2 = np.nonzero(double)
    x = np.concatenate([x1, x2, x2])
    y = np.concatenate([y1, y2, y2])
    copy = np.concatenate([np.zeros(len(x1) + len(x2), int), np.ones(len(x2), int)])
    across = _partners(np.lexsort((copy, x, y)))
    down = _partners(np.lexsort((copy, y, x)))
    return _rings(x, y, across, down)


def _partners(order: NDArray[np.int64]) -> list[int]:
    """Return for each corner the other end of its edge: sorted corners are ends two by two."""
    partner = np.empty(len(order), np.int64)
    partner[order[::2]] = order[1::2]
    partner[order[1::2]] = order[::2]
    return partner.tolist()


def _rings(
    x: NDArray[np.int64], y: NDArray[np.int64], across: list[int], down: list[int]
) -> list[list[list[float]]]:
    """Follow the edges, horizontal and vertical in turn, until each ring closes."""
    points = np.stack([x, y], axis=1).astype(float).tolist()
    seen = bytearray(len(points))
    rings = []
    for start in range(len(points)):
        if seen[start]:
            continue
        ring, at = [], start
        while not seen[at]:
            seen[at] = 1
            ring.append(points[at])
            at = across[at]
            seen[at] = 1
            ring.append(points[at])
            at = down[at]
        rings.append(ring)
    return rings

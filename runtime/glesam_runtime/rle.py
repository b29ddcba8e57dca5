"""Represent masks as run lengths: count runs, edit them, and encode them as COCO does.

A mask is split into runs of equal pixels, counted down its columns. The runs alternate and start
with background: the first run is 0 if the first pixel belongs to the mask, as in COCO. A span is a
run of the mask itself, given by the positions of its first pixel and of the first pixel after it.

COCO's compressed encoding writes each run as a number of base 32 in printable characters; from the
fourth run on, as the difference from the run two before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypedDict

import numpy as np

from glesam_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    RunLengths: TypeAlias = NDArray[np.integer]
    Spans: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]

_OFFSET = 48
"""Added to each group of 6 bits to make it printable: group 0 is the character "0"."""
_MORE, _SIGN = 0x20, 0x10


class Rle(TypedDict):
    """A mask in COCO's compressed format, as pycocotools reads it."""

    size: list[int]
    """Height, width."""
    counts: str


def count_runs(
    mask: NDArray[np.bool_],
    frame: tuple[int, int] | None = None,
    corner: tuple[int, int] = (0, 0),
) -> NDArray[np.int64]:
    """Count the runs of a mask, or of a larger frame that is background around the mask.

    Args:
        mask: bool [h, w].
        frame: (H, W) of the frame in pixels; None is the mask's own size.
        corner: (top, left) of the mask in the frame, in pixels.
    """
    frame_height, frame_width = frame or mask.shape
    spans = mask_spans(mask, frame_height, corner)
    return join_spans(spans, frame_height * frame_width)


def mask_spans(
    mask: NDArray[np.bool_], frame_height: int, corner: tuple[int, int] = (0, 0)
) -> Spans:
    """Return the spans of a mask in a frame; each lies in one column.

    Args:
        mask: bool [h, w].
        frame_height: height of the frame in pixels.
        corner: (top, left) of the mask in the frame, in pixels.
    """
    height, width = mask.shape
    # A row of background above and below, so that no run continues into the next column.
    columns = np.zeros((width, height + 2), np.bool_)
    columns[:, 1:-1] = mask.T
    flat = columns.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    column, row = np.divmod(edges, height + 2)
    top, left = corner
    positions = (column + left) * frame_height + row - 1 + top
    return positions[::2], positions[1::2]


def runs_in_window(
    runs: RunLengths, height: int, box: tuple[int, int, int, int], step: int = 1
) -> NDArray[np.bool_]:
    """Return a part of a mask as bool [h, w], without making the whole mask.

    Args:
        runs: the runs of a mask.
        height: height of the mask in pixels.
        box: x0, y0, x1, y1 of the part in pixels; x1 and y1 are one past the last.
        step: take only every so many rows and columns, from the middle of the first so many.
    """
    x0, y0, x1, y1 = box
    starts, ends = split_at_columns(run_spans(runs), height)
    first, last = np.searchsorted(starts, (x0 * height, x1 * height))
    starts, ends = starts[first:last], ends[first:last]
    column, middle = starts // height, step // 2
    at, missed = np.divmod(column - x0 - middle, step)
    low = np.clip(starts - column * height - y0, 0, y1 - y0)
    high = np.clip(ends - column * height - y0, 0, y1 - y0)
    # The first of the rows middle, middle + step, ... that is not above an edge.
    low, high = -((middle - low) // step), -((middle - high) // step)
    rows, columns = (max(0, -((middle - side) // step)) for side in (y1 - y0, x1 - x0))
    keep = (missed == 0) & (high > low)
    edges = np.zeros((columns, rows + 1), np.int8)
    np.add.at(edges, (at[keep], low[keep]), 1)
    np.add.at(edges, (at[keep], high[keep]), -1)
    inside: NDArray[np.bool_] = np.cumsum(edges, axis=1, dtype=np.int8)[:, :-1].T > 0
    return inside


def unite_spans(parts: Sequence[Spans]) -> Spans:
    """Return the union of spans in order; they may overlap."""
    starts = np.concatenate([start for start, _ in parts])
    ends = np.concatenate([end for _, end in parts])
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    opens = np.ones(len(starts), np.bool_)
    opens[1:] = starts[1:] > ends[:-1]
    closes = np.append(opens[1:], True)[: len(ends)]
    return starts[opens], ends[closes]


def runs_to_mask(runs: RunLengths | list[int], height: int, width: int) -> NDArray[np.bool_]:
    """Return the bool mask [H, W] of runs whose lengths add up to its pixels."""
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return pixels.reshape((height, width), order="F")


def run_area(runs: RunLengths) -> int:
    """Return the number of pixels in the mask."""
    return int(runs[1::2].sum())


def run_box(runs: RunLengths, height: int) -> tuple[int, int, int, int]:
    """Return the first and last column and row: x0, y0, x1, y1; zeros for an empty mask.

    Args:
        runs: the runs of a mask.
        height: height of the mask in pixels.
    """
    starts, ends = split_at_columns(run_spans(runs), height)
    if starts.size == 0:
        return 0, 0, 0, 0
    rows, last_rows = starts % height, (ends - 1) % height
    return (
        int(starts[0]) // height,
        int(rows.min()),
        int(ends[-1] - 1) // height,
        int(last_rows.max()),
    )


def run_spans(runs: RunLengths) -> Spans:
    """Return the starts and ends of the mask's own runs, in order."""
    bounds = np.cumsum(runs, dtype=np.int64)
    ends = bounds[1::2]
    return bounds[::2][: len(ends)], ends


def split_at_columns(spans: Spans, height: int) -> Spans:
    """Cut spans at the ends of columns, so that each lies in one column."""
    starts, ends = spans
    first, last = starts // height, (ends - 1) // height
    pieces = last - first + 1
    # The columns of a span's pieces: its first column plus 0, 1, 2 and so on.
    offset = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    column = np.repeat(first, pieces) + offset
    return (
        np.maximum(np.repeat(starts, pieces), column * height),
        np.minimum(np.repeat(ends, pieces), (column + 1) * height),
    )


def join_spans(spans: Spans, pixels: int) -> NDArray[np.int64]:
    """Return the runs of a mask with this many pixels from sorted spans, which may touch."""
    starts, ends = spans
    apart = starts[1:] != ends[:-1]
    bounds = np.empty(2 * (np.count_nonzero(apart) + bool(starts.size)), np.int64)
    bounds[::2] = np.concatenate([starts[:1], starts[1:][apart]])
    bounds[1::2] = np.concatenate([ends[:-1][apart], ends[-1:]])
    runs = np.diff(bounds, prepend=0, append=pixels)
    return runs if runs[-1] or runs.size == 1 else runs[:-1]


def invert_runs(runs: RunLengths) -> RunLengths:
    """Return the runs of the inverted mask."""
    return runs[1:] if runs[0] == 0 else np.concatenate([np.zeros(1, runs.dtype), runs])


def encode_rle(mask: NDArray[np.bool_]) -> Rle:
    """Encode a bool mask [H, W] as COCO RLE."""
    height, width = mask.shape
    return encode_runs(count_runs(mask), height, width)


def encode_runs(runs: RunLengths, height: int, width: int) -> Rle:
    """Encode the runs of a mask of this size in pixels."""
    deltas = runs.astype(np.int64)
    deltas[3:] -= runs[1:-2]
    return Rle(size=[height, width], counts=_write(deltas))


def decode_rle(rle: Rle) -> NDArray[np.bool_]:
    """Decode COCO RLE to a bool mask [H, W].

    Raises:
        InputError: a character is not part of the code, or the runs do not fill the mask.
    """
    height, width = rle["size"]
    runs = _read(rle["counts"])
    for index in range(3, len(runs)):
        runs[index] += runs[index - 2]
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise InputError(f"RLE: the runs do not fill {height} x {width} pixels")
    return runs_to_mask(runs, height, width)


def _write(values: NDArray[np.int64]) -> str:
    """Write signed numbers, each as groups of 5 bits, the least significant group first.

    Works on one group of all numbers at a time, because a noisy mask has a million runs.
    """
    groups, used = [], []
    rest, open_ = values.astype(np.int64), np.ones(len(values), np.bool_)
    while open_.any():
        low = rest & 0x1F
        rest = rest >> 5
        # A number is complete when only sign bits remain and the group's top bit equals the sign.
        more = np.where(low & _SIGN, rest != -1, rest != 0)
        groups.append(low | np.where(more, _MORE, 0))
        used.append(open_)
        open_ = open_ & more
    characters = (np.stack(groups, axis=1) + _OFFSET).astype(np.uint8)
    return characters[np.stack(used, axis=1)].tobytes().decode("ascii")


def _read(text: str) -> list[int]:
    """Read the numbers that `_write` wrote."""
    values, value, shift = [], 0, 0
    for character in text:
        group = ord(character) - _OFFSET
        if not 0 <= group < 64 or shift > 60:
            raise InputError(f"RLE: unexpected character {character!r}")
        value |= (group & 0x1F) << shift
        shift += 5
        if not group & _MORE:
            values.append(value - (1 << shift) if group & _SIGN else value)
            value, shift = 0, 0
    if shift:
        raise InputError("RLE: the text ends within a number")
    return values

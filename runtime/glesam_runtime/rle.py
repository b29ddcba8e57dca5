"""COCO's compressed run-length encoding of a mask.

Each of the runs of `runs` is written as a number of base 32 in printable characters; from the
fourth on, as its difference from the run two before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np

from glesam_runtime.errors import InputError
from glesam_runtime.runs import count_runs, runs_to_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.runs import Runs

_OFFSET = 48
"""Added to 6-bit groups, so that they print: "0" is group 0."""
_MORE, _SIGN = 0x20, 0x10


class Rle(TypedDict):
    """A mask as COCO's tools read it."""

    size: list[int]
    """Height, width."""
    counts: str


def encode_rle(mask: NDArray[np.bool_]) -> Rle:
    """Encode a mask [H, W]."""
    height, width = mask.shape
    return encode_runs(count_runs(mask), height, width)


def encode_runs(runs: Runs, height: int, width: int) -> Rle:
    """Encode the runs of a mask of this size."""
    deltas = runs.astype(np.int64)
    deltas[3:] -= runs[1:-2]
    return Rle(size=[height, width], counts=_write(deltas))


def decode_rle(rle: Rle) -> NDArray[np.bool_]:
    """Decode to a mask [H, W].

    Raises:
        InputError: characters outside the code, or runs that do not fill the size.
    """
    height, width = rle["size"]
    runs = _read(rle["counts"])
    for index in range(3, len(runs)):
        runs[index] += runs[index - 2]
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise InputError(f"RLE: its runs do not fill {height} x {width} pixels")
    return runs_to_mask(runs, height, width)


def _write(values: NDArray[np.int64]) -> str:
    """Signed numbers, least significant group of 5 bits first, all at once.

    Group by group over the whole array, since a noisy mask has a million runs.
    """
    groups, used = [], []
    rest, open_ = values.astype(np.int64), np.ones(len(values), np.bool_)
    while open_.any():
        low = rest & 0x1F
        rest = rest >> 5
        # Done where only sign bits remain and the group's own top bit tells that sign.
        more = np.where(low & _SIGN, rest != -1, rest != 0)
        groups.append(low | np.where(more, _MORE, 0))
        used.append(open_)
        open_ = open_ & more
    characters = (np.stack(groups, axis=1) + _OFFSET).astype(np.uint8)
    return characters[np.stack(used, axis=1)].tobytes().decode("ascii")


def _read(text: str) -> list[int]:
    """The numbers of `_write`."""
    values, value, shift = [], 0, 0
    for character in text:
        group = ord(character) - _OFFSET
        if not 0 <= group < 64 or shift > 60:
            raise InputError(f"RLE: unexpected {character!r}")
        value |= (group & 0x1F) << shift
        shift += 5
        if not group & _MORE:
            values.append(value - (1 << shift) if group & _SIGN else value)
            value, shift = 0, 0
    if shift:
        raise InputError("RLE: ends within a number")
    return values

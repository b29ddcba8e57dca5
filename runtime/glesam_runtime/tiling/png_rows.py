"""Write a PNG band by band, so that the whole picture is never in memory."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime.rle import runs_in_window

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from glesam_runtime.rle import RunLengths

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _PALETTE = 0, 3
_BAND_PIXELS = 1 << 22
"""Number of pixels in a band."""
_LEVEL = 6


def write_png(
    path: Path,
    size: tuple[int, int],
    bands: Iterable[NDArray[np.unsignedinteger]],
    palette: NDArray[np.uint8] | None = None,
) -> None:
    """Write a gray picture, or one with a palette.

    Args:
        path: the file.
        size: (H, W) in pixels.
        bands: arrays [h, W] of the same type, uint8 or uint16, from the top; H rows together.
        palette: RGB colours, uint8 [N, 3], of the values of uint8 bands.
    """
    height, width = size
    packer = zlib.compressobj(_LEVEL)
    with path.open("wb") as file:
        file.write(_SIGNATURE)
        for index, band in enumerate(bands):
            if index == 0:
                kind = _GRAY if palette is None else _PALETTE
                depth = 8 * band.dtype.itemsize
                head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
                file.write(_chunk(b"IHDR", head))
                if palette is not None:
                    file.write(_chunk(b"PLTE", palette.tobytes()))
            rows = np.ascontiguousarray(band, band.dtype.newbyteorder(">")).view(np.uint8)
            # A byte in front of each row says that the row is not filtered.
            lines = np.zeros((len(rows), rows.shape[1] + 1), np.uint8)
            lines[:, 1:] = rows
            file.write(_chunk(b"IDAT", packer.compress(lines.tobytes())))
        file.write(_chunk(b"IDAT", packer.flush()))
        file.write(_chunk(b"IEND", b""))


def mask_bands(runs: RunLengths, size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Yield a mask as bands of 0 and 255.

    Args:
        runs: the runs of the mask.
        size: (H, W) in pixels.
    """
    for top, bottom in _bands(size):
        window = runs_in_window(runs, size[0], (0, top, size[1], bottom))
        yield window.astype(np.uint8) * np.uint8(255)


def instance_bands(
    painted: Sequence[tuple[int, RunLengths, tuple[int, int, int, int]]],
    size: tuple[int, int],
    dtype: type[np.uint8] | type[np.uint16],
) -> Iterator[NDArray[np.unsignedinteger]]:
    """Yield an instance map as bands.

    Args:
        painted: the value, the runs and the box (first and last column and row) of each mask; a
            later one lies on top.
        size: (H, W) in pixels.
        dtype: the type of the values.
    """
    for top, bottom in _bands(size):
        band = np.zeros((bottom - top, size[1]), dtype)
        for value, runs, (x0, y0, x1, y1) in painted:
            first, last = max(top, y0), min(bottom, y1 + 1)
            if first < last:
                window = runs_in_window(runs, size[0], (x0, first, x1 + 1, last))
                band[first - top : last - top, x0 : x1 + 1][window] = value
        yield band


def _bands(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    height, width = size
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

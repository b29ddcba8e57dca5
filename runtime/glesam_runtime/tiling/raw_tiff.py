"""Read windows of an uncompressed TIFF with 8 bits per sample, without another package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from glesam_runtime.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    from glesam_runtime.everything.crops import Box

_BITS, _COMPRESSION, _PHOTOMETRIC = 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP = 273, 277, 278
_PLANAR, _EXTRA_SAMPLES = 284, 338
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS = 322, 323, 324
_BLACK_IS_ZERO, _RGB = 1, 2


@dataclass(frozen=True, eq=False)
class RawTiff:
    """Parts of an uncompressed TIFF whose pixels lie in strips or tiles."""

    path: Path
    file: BinaryIO
    height: int
    width: int
    samples: int
    """1 for gray, 3 for RGB."""
    block: tuple[int, int]
    """Height and width of a strip or tile in pixels."""
    offsets: tuple[int, ...]
    """First byte of each block, row by row."""
    note: str | None = None

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return a part of the picture, uint8 [h, w, 3], RGB.

        Raises:
            InputError: the file ends before its pixels do.
        """
        x0, y0, x1, y1 = box
        high, wide = self.block
        across = -(-self.width // wide)
        part = np.empty((y1 - y0, x1 - x0, self.samples), np.uint8)
        for row in range(y0, y1):
            for column in range(x0 // wide, -(-x1 // wide)):
                first, last = max(x0, column * wide), min(x1, (column + 1) * wide)
                start = self.offsets[(row // high) * across + column]
                inside = (row % high) * wide + first - column * wide
                self.file.seek(start + inside * self.samples)
                count = (last - first) * self.samples
                line = self.file.read(count)
                if len(line) < count:
                    raise InputError(f"{self.path}: ends before its pixels do; it is truncated")
                values = np.frombuffer(line, np.uint8).reshape(-1, self.samples)
                part[row - y0, first - x0 : last - x0] = values
        return part if self.samples == 3 else np.repeat(part, 3, axis=2)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def open_raw_tiff(path: Path, image: Image.Image) -> RawTiff | None:
    """Return a reader of windows, or None for a TIFF of another kind.

    Args:
        path: the file.
        image: the file as Pillow opened it, of which only the tags are read.
    """
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None:
        return None
    samples = int(tags.get(_SAMPLES, 1))
    kind = tags.get(_COMPRESSION, 1), tags.get(_PLANAR, 1), tags.get(_PHOTOMETRIC)
    if kind not in ((1, 1, _RGB if samples == 3 else _BLACK_IS_ZERO),) or samples not in (1, 3):
        return None
    if set(tags.get(_BITS, ())) != {8} or _EXTRA_SAMPLES in tags:
        return None
    width, height = image.size
    if _TILE_OFFSETS in tags:
        block = int(tags[_TILE_HEIGHT]), int(tags[_TILE_WIDTH])
    else:
        block = min(int(tags.get(_ROWS_PER_STRIP, height)), height), width
    offsets = tags.get(_TILE_OFFSETS, tags.get(_STRIP_OFFSETS, ()))
    if min(block) < 1 or len(offsets) != -(-height // block[0]) * -(-width // block[1]):
        return None
    return RawTiff(path, path.open("rb"), height, width, samples, block, tuple(map(int, offsets)))

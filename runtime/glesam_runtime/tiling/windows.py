"""Read parts of a picture: from an array, or by a reader that never holds the whole picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from glesam_runtime.errors import InputError
from glesam_runtime.image import Geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.everything.crops import Box

_BAND_PIXELS = 1 << 22
"""Number of pixels that are read at once to reduce a window: 12 MiB."""


class Windows(Protocol):
    """A picture of which parts can be read."""

    @property
    def height(self) -> int:
        """Return the height of the picture in pixels."""

    @property
    def width(self) -> int:
        """Return the width of the picture in pixels."""

    @property
    def note(self) -> str | None:
        """Return what may be wrong with the picture, or None."""

    def read(self, box: Box, /) -> NDArray[np.uint8]:
        """Return a part of the picture, uint8 [h, w, 3], RGB.

        Raises:
            InputError: the part cannot be read.
        """

    def close(self) -> None:
        """Close the file."""


@dataclass(frozen=True, eq=False)
class ArrayWindows:
    """Parts of an array, which may be a `numpy.memmap`: uint8 [H, W, 3], RGB."""

    image: NDArray[np.uint8]
    note: str | None = None

    def __post_init__(self) -> None:
        image = self.image
        if not isinstance(image, np.ndarray):
            raise InputError(f"image: must be a uint8 array [H, W, 3], not {type(image).__name__}")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(
                f"image: must be uint8 [H, W, 3] with at least one pixel, not {image.dtype} "
                f"{list(image.shape)}"
            )

    @property
    def height(self) -> int:
        """Return the height of the picture in pixels."""
        return int(self.image.shape[0])

    @property
    def width(self) -> int:
        """Return the width of the picture in pixels."""
        return int(self.image.shape[1])

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return a part of the picture, uint8 [h, w, 3], RGB."""
        x0, y0, x1, y1 = box
        return np.ascontiguousarray(self.image[y0:y1, x0:x1])

    def close(self) -> None:
        """Do nothing: the array belongs to the caller."""


def frame_of(windows: Windows) -> Geometry:
    """Return a geometry with the size of a picture, against which prompts are checked."""
    size = windows.height, windows.width
    return Geometry(max(size), size, size)  # the resized size does not matter here


def read_reduced(windows: Windows, box: Box, factor: int) -> NDArray[np.uint8]:
    """Return a part of the picture, reduced by a whole factor: each pixel is the mean of a square.

    The part is read in bands of rows, so that memory does not grow with it. Squares at the right
    and lower end may be cut off by the end of the part.

    Args:
        windows: the picture.
        box: the part.
        factor: the side of the squares in pixels; 1 reads the part as it is.

    Returns:
        uint8 [ceil(h / factor), ceil(w / factor), 3], RGB.
    """
    if factor == 1:
        return windows.read(box)
    x0, y0, x1, y1 = box
    height, width = -(-(y1 - y0) // factor), -(-(x1 - x0) // factor)
    reduced = np.empty((height, width, 3), np.uint8)
    rows = max(1, _BAND_PIXELS // ((x1 - x0) * factor))
    starts = np.arange(0, x1 - x0, factor)
    across = np.diff(np.append(starts, x1 - x0))
    for top in range(0, height, rows):
        first = y0 + top * factor
        last = min(first + rows * factor, y1)
        band = windows.read((x0, first, x1, last))
        edges = np.arange(0, last - first, factor)
        down = np.diff(np.append(edges, last - first))
        sums = np.add.reduceat(band, edges, axis=0, dtype=np.uint32)
        sums = np.add.reduceat(sums, starts, axis=1)
        areas = np.outer(down, across)[..., None]
        reduced[top : top + len(edges)] = (sums + areas // 2) // areas
    return reduced

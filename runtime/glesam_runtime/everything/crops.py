"""Plan where everything-mode searches: the whole image, and crops of it.

Layer 0 is the whole image; layer n has 4**n crops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from glesam_runtime.errors import InputError
from glesam_runtime.limits import CROPS

Box = tuple[int, int, int, int]

NEAR = 20
"""Distance in pixels from a crop's edge within which the edge may have cut off a mask."""


@dataclass(frozen=True)
class Crop:
    """A part of the image that is encoded and searched separately."""

    box: Box
    """x0, y0, x1, y1 in pixels of the image; x1 and y1 are one past the last pixel."""
    layer: int
    """0 is the whole image."""

    @property
    def area(self) -> int:
        """Return the number of pixels."""
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0)


def plan_crops(height: int, width: int, layers: int, overlap_ratio: float) -> list[Crop]:
    """Return the whole image, then the 4**n crops of each layer n, column by column.

    Args:
        height: height of the image in pixels.
        width: width of the image in pixels.
        layers: number of layers beyond the whole image.
        overlap_ratio: overlap in the first layer, as a share of the shorter side.

    Raises:
        InputError: the image is too small for so many layers, or they have too many crops.
    """
    crops = [Crop((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        side = 2**layer
        overlap = int(overlap_ratio * min(height, width) * (2 / side))
        across, down = _cut(width, side, overlap), _cut(height, side, overlap)
        if min(high - low for low, high in (*across, *down)) < 1:
            raise InputError(
                f"image: {width} x {height} pixels, too small for {layers} layers of crops; "
                f"the maximum is {layer - 1}"
            )
        count = len(crops) + side * side
        CROPS.check(count, f"crop_n_layers {layers}: {count} crops up to layer {layer}")
        crops += [Crop((x0, y0, x1, y1), layer) for x0, x1 in across for y0, y1 in down]
    return crops


def near_crop_edge(box: Box, crop: Crop, whole: Crop) -> bool:
    """Return whether a mask's box ends at an edge of its crop that is not an edge of the image.

    Args:
        box: first and last column and row, x0, y0, x1, y1, in pixels of the image.
        crop: the crop in which the mask was found.
        whole: the whole image.
    """
    return any(
        abs(at - edge) <= NEAR and abs(at - end) > NEAR
        for at, edge, end in zip(box, crop.box, whole.box, strict=True)
    )


def _cut(length: int, count: int, overlap: int) -> list[tuple[int, int]]:
    """Cut an axis into `count` overlapping parts of equal length; the last may be shorter."""
    part = math.ceil((overlap * (count - 1) + length) / count)
    starts = [(part - overlap) * index for index in range(count)]
    return [(start, min(start + part, length)) for start in starts]

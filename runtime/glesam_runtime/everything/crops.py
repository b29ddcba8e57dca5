"""Where to look: the whole image and crops of it, layer by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from glesam_runtime.errors import InputError

Box = tuple[int, int, int, int]

_NEAR = 20
"""Pixels: a box that ends this near to where its crop ends may have been cut off."""


@dataclass(frozen=True)
class Crop:
    """A part of the image that is encoded and searched on its own."""

    box: Box
    """x0, y0, x1, y1 in pixels of the image; x1 and y1 lie one past the last pixel."""
    layer: int
    """0 is the whole image."""

    @property
    def area(self) -> int:
        """Pixels."""
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0)


def plan_crops(height: int, width: int, layers: int, overlap_ratio: float) -> list[Crop]:
    """The whole image, then 4**n crops for each layer n, column by column.

    Args:
        height: the image's, in pixels; likewise `width`.
        width: pixels.
        layers: how many beyond the whole image.
        overlap_ratio: overlap in the first layer, of the shorter side.

    Raises:
        InputError: a crop would hold nothing.
    """
    crops = [Crop((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        side = 2**layer
        overlap = int(overlap_ratio * min(height, width) * (2 / side))
        across, down = _cut(width, side, overlap), _cut(height, side, overlap)
        if min(high - low for low, high in (*across, *down)) < 1:
            raise InputError(
                f"image: {width} x {height} pixels, too few for {layers} layers of crops; "
                f"the most is {layer - 1}"
            )
        crops += [Crop((x0, y0, x1, y1), layer) for x0, x1 in across for y0, y1 in down]
    return crops


def near_crop_edge(box: Box, crop: Crop, whole: Crop) -> bool:
    """Whether a mask's box ends where its crop does but the image does not.

    Args:
        box: first and last column and row, x0, y0, x1, y1, in pixels of the image.
        crop: where the mask was found.
        whole: the whole image.
    """
    return any(
        abs(at - edge) <= _NEAR and abs(at - end) > _NEAR
        for at, edge, end in zip(box, crop.box, whole.box, strict=True)
    )


def _cut(length: int, count: int, overlap: int) -> list[tuple[int, int]]:
    """Cut an axis into `count` parts of one length that overlap; the last may be shorter."""
    part = math.ceil((overlap * (count - 1) + length) / count)
    starts = [(part - overlap) * index for index in range(count)]
    return [(start, min(start + part, length)) for start in starts]

"""Resize with an antialiased bilinear filter in float, as torchvision resizes float tensors.

Resizing an axis is a product with a matrix that has a few neighbouring weights in each row. The
image is processed in tiles, so that the matrices of a tile are dense and small, and no float copy
of a large image ever exists.

Every program that reads a bundle computes the same bits. Weights are multiples of 2 ** -28, and the
result of the first axis is rounded to multiples of 2 ** -17. So every product and sum is exact in
the 53 bits of float64, in any order of addition, and only the final conversion to float32 rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_TILE = 32
"""The side of an output tile in pixels."""

_REACH = 1024
"""The maximum side of a tile's input in pixels, unless a single output needs more."""

_UNITS = 1 << 28
"""The weights of an output add up to this many units."""

_FRACTIONS = 1 << 17
"""Values between the two axes are rounded to multiples of 1 / _FRACTIONS."""


@dataclass(frozen=True)
class _Block:
    """A range of outputs of an axis: `out[target] = weights @ in[source]`."""

    target: slice
    source: slice
    weights: NDArray[np.float64]


def resize_bilinear(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """Resize an image to (height, width), with any aspect ratio.

    Args:
        image: uint8 [H, W, 3].
        height: the height of the result in pixels.
        width: the width of the result in pixels.

    Returns:
        float32 [height, width, 3], 0 to 255, not rounded to integers.
    """
    resized = np.empty((height, width, 3), np.float32)
    columns = list(_blocks(image.shape[1], width))
    for down in _blocks(image.shape[0], height):
        for across in columns:
            # [h, w, 3] -> [3, h, w], so that both products are plain matrix products
            tile = image[down.source, across.source].transpose(2, 0, 1).astype(np.float64)
            wide = np.rint((tile @ across.weights.T) * _FRACTIONS) / _FRACTIONS
            made = down.weights @ wide
            resized[down.target, across.target] = made.transpose(1, 2, 0)
    return resized


def _blocks(size_in: int, size_out: int) -> Iterator[_Block]:
    """Split an axis into blocks of `_TILE` outputs, or fewer if they would need too much input.

    The weights of an output are a triangle around its centre. On each side it is as wide as one
    output pixel, but at least one input pixel. The part beyond the edge is cut off, and the rest is
    divided by its sum. What rounding leaves over is added to the first of the largest weights.
    """
    scale = size_in / size_out
    reach = max(scale, 1.0)
    step = min(_TILE, max(1, int(_REACH / scale) - 2))
    for begin in range(0, size_out, step):
        target = np.arange(begin, min(begin + step, size_out))
        centre = (target + 0.5) * scale
        first = int(max(centre[0] - reach, 0))
        last = int(min(np.ceil(centre[-1] + reach), size_in))
        distance = np.abs(np.arange(first, last) + 0.5 - centre[:, None])
        weights = np.maximum(1.0 - distance / reach, 0.0)
        # cumsum() adds from left to right, which sum() does not guarantee.
        units = np.rint(weights / weights.cumsum(axis=1)[:, -1:] * _UNITS)
        units[np.arange(len(units)), units.argmax(axis=1)] += _UNITS - units.sum(axis=1)
        yield _Block(
            slice(int(target[0]), int(target[-1]) + 1),
            slice(first, last),
            units / _UNITS,
        )

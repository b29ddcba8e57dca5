"""Antialiased bilinear resizing in float, as torchvision does it to float tensors.

Each axis is a matrix of a few neighbouring weights a row. The image is worked on in tiles, so that
a tile's matrices are dense and small, and no float copy of a huge image ever exists.

Every program that reads a bundle gets the same bits. Weights are multiples of 2 ** -28, and what
the first axis gives is rounded to one of 2 ** -17: then every product and sum is exact in the 53
bits of float64, whatever order a matrix library adds in, and one rounding to float32 ends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_TILE = 32
"""Side of a tile of the output, in pixels."""

_REACH = 1024
"""Pixels of the input that a tile may take on a side, where one output does not take more."""

_UNITS = 1 << 28
"""Of them a row of weights is made up."""

_FRACTIONS = 1 << 17
"""Of one, to which a value between the axes is rounded."""


@dataclass(frozen=True)
class _Block:
    """Some outputs of an axis: `out[target] = weights @ in[source]`."""

    target: slice
    source: slice
    weights: NDArray[np.float64]


def resize_bilinear(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """Resize an image to (height, width), in any proportion.

    Args:
        image: uint8 [H, W, 3].
        height: of the result, in pixels.
        width: of the result, in pixels.

    Returns:
        float32 [height, width, 3], 0 to 255, not rounded.
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
    """An axis in blocks of `_TILE` outputs, or fewer where they would take too much of the input.

    The weights are a triangle over the input, as wide as one output pixel on either side of its
    centre and never narrower than one input pixel; what it covers beyond the edge is left out and
    the rest made to add up to one, what rounding leaves over being the first largest weight's.
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
        # Added up from left to right, which sum() does not promise.
        units = np.rint(weights / weights.cumsum(axis=1)[:, -1:] * _UNITS)
        units[np.arange(len(units)), units.argmax(axis=1)] += _UNITS - units.sum(axis=1)
        yield _Block(
            slice(int(target[0]), int(target[-1]) + 1),
            slice(first, last),
            units / _UNITS,
        )

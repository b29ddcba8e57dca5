"""Read a photograph with known masks that comes with scikit-image: 24 Greek coins.

The masks are a watershed of the gradient, started from pixels that surely are coin or background.
They follow the coins' edges to a pixel or two, as drawing them over the photograph shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from glesam_evaluation.datasets import Sample

GROUND, COIN = 30, 150
"""Gray values below which a pixel surely is background, and above which it surely is coin."""

COUNT = 24


class Coins:
    """A `Dataset` of one picture."""

    @property
    def names(self) -> Sequence[str]:
        """Return the picture's name."""
        return ["coins"]

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        if index != 0:
            raise IndexError(index)
        from skimage import data

        gray = data.coins()
        return Sample("coins", np.repeat(gray[..., None], 3, axis=2), coin_masks(gray))


def coin_masks(gray: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return the masks of the coins in scikit-image's photograph, bool [24, H, W].

    Raises:
        ValueError: it is another photograph.
    """
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    markers = np.where(gray < GROUND, 1, np.where(gray > COIN, 2, 0))
    filled = ndimage.binary_fill_holes(watershed(sobel(gray), markers) == 2)
    labels, count = ndimage.label(filled)
    areas = ndimage.sum_labels(filled, labels, np.arange(1, count + 1))
    kept = 1 + np.flatnonzero(areas >= 0.3 * np.median(areas[areas > 100]))
    if len(kept) != COUNT:
        raise ValueError(f"found {len(kept)} coins instead of {COUNT}")
    masks: npt.NDArray[np.bool_] = labels[None] == kept[:, None, None]
    return masks

"""Read the bitmasks of BDD-100K: RGBA PNGs whose four channels number the objects.

Red is the category from 1 on, green holds four flags, and blue and alpha are the two bytes of the
object's number. As an ordinary image with transparency, such a file shows next to nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from glesam_runtime.errors import InputError
from glesam_runtime.image_file import open_picture

_CROWD, _IGNORED = 2, 1
"""Flags in the green channel; truncated is 8 and occluded is 4."""


def read_bitmasks(path: Path) -> npt.NDArray[np.bool_]:
    """Read a bitmask file as bool [K,H,W], one mask per object; K may be 0.

    Crowds and ignored regions are not objects.

    Raises:
        InputError: the file cannot be read, or is not an RGBA image.
    """
    numbers = _numbers(path)
    labels = np.unique(numbers[numbers > 0])
    masks: npt.NDArray[np.bool_] = numbers[None] == labels[:, None, None]
    return masks


def count_bitmasks(path: Path) -> int:
    """Return the number of masks that `read_bitmasks` would return, without making them.

    Raises:
        InputError: as `read_bitmasks`.
    """
    numbers = _numbers(path)
    return len(np.unique(numbers[numbers > 0]))


def _numbers(path: Path) -> npt.NDArray[np.int64]:
    """Return the number of the object in each pixel, [H,W]; 0 is none."""
    try:
        with open_picture(path) as image:
            mode, pixels = image.mode, np.asarray(image).astype(np.int64)
    except InputError:
        raise
    except Exception as error:  # decoders raise errors of any type on damaged files
        raise InputError(f"{path}: cannot be read as a bitmask ({error})") from error
    if mode != "RGBA":
        raise InputError(
            f"{path}: is no bitmask of BDD-100K, which is an RGBA image (this one is {mode}); give "
            "the folder labels/ins_seg/bitmasks, not colormaps or polygons"
        )
    category, flags, high, low = np.moveaxis(pixels, 2, 0)
    is_object = (category > 0) & (flags & (_CROWD | _IGNORED) == 0)
    return np.where(is_object, (high << 8) + low, 0)

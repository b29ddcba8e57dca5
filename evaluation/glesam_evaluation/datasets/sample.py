"""What every dataset yields, and how its files are looked at before the first one is needed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from glesam_runtime.errors import InputError

_EXIF_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""
_NAMED = 3
"""Offenders that an error names before it only counts them."""


@dataclass(frozen=True, eq=False)
class Sample:
    """An image and the objects in it.

    `name` is unique in its dataset. `image` is uint8 RGB [H,W,3]. `masks` is bool [K,H,W] with
    K >= 1; none is empty, and they may overlap.
    """

    name: str
    image: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]


class Dataset(Protocol):
    """Samples by index, read when asked for; can be pickled, for worker processes."""

    @property
    def names(self) -> Sequence[str]:
        """Each sample's name, in order; no two alike."""

    def __len__(self) -> int:
        """How many samples there are, at least 1."""

    def __getitem__(self, index: int) -> Sample:
        """Read one sample.

        Raises:
            InputError: a file has become unreadable, or its masks are all empty.
            IndexError: no such sample.
        """


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) of an image file as a viewer shows it, from its header alone.

    Raises:
        InputError: not an image, or unreadable.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_EXIF_ORIENTATION, 1) in _TURNED
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not an image in a known format") from error
    except Exception as error:  # decoders raise whatever their bytes lead them to
        raise InputError(f"{path}: cannot be read as an image ({error})") from error
    return (width, height) if turned else (height, width)


def printable(text: str) -> str:
    """A name as UTF-8 can hold it: a file's need not be UTF-8, a report's must."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def name_some(offenders: Iterable[object]) -> str:
    """The first three, and how many more there are."""
    listed = [str(offender) for offender in offenders]
    more = len(listed) - _NAMED
    return ", ".join(listed[:_NAMED]) + (f" and {more} more" if more > 0 else "")

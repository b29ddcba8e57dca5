"""Define samples and datasets, and check image files by their headers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from glesam_runtime.errors import InputError
from glesam_runtime.image_file import open_picture, upright_size

_NAMED = 3
"""Maximum number of items that an error message lists by name."""


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
    """Samples by index, each read on demand. A dataset can be pickled for worker processes."""

    @property
    def names(self) -> Sequence[str]:
        """Return the names of all samples, in order. Names are unique."""

    def __len__(self) -> int:
        """Return the number of samples, at least 1."""

    def __getitem__(self, index: int) -> Sample:
        """Read one sample.

        Raises:
            InputError: a file cannot be read any more, or all its masks are empty.
            IndexError: there is no such sample.
        """


def size_of(path: Path) -> tuple[int, int]:
    """Return (height, width) of an image file as a viewer shows it; only the header is read.

    Raises:
        InputError: the file is not an image, or cannot be read.
    """
    try:
        with open_picture(path) as image:
            return upright_size(image)
    except InputError:
        raise
    except Exception as error:  # decoders raise errors of any type on damaged files
        raise InputError(f"{path}: cannot be read as an image ({error})") from error


def fingerprint_of(parts: Iterable[object]) -> str:
    """Return 16 hexadecimal digits that differ for other parts or another order of them."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode() + b"\n")
    return digest.hexdigest()[:16]


def printable(text: str) -> str:
    """Return a file name as valid UTF-8, with escapes for bytes that are not."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def name_some(offenders: Iterable[object]) -> str:
    """Return the first three items as text, and the number of the others."""
    listed = [str(offender) for offender in offenders]
    more = len(listed) - _NAMED
    return ", ".join(listed[:_NAMED]) + (f" and {more} more" if more > 0 else "")

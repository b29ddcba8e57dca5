"""Limit the size of inputs, so that a hostile or mistaken one ends with a message.

Each limit has a default that ordinary work does not reach, and an environment variable that raises
it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from glesam_runtime.errors import BundleError, CheckpointError, GlesamError, InputError


@dataclass(frozen=True)
class Limit:
    """The largest size of one kind of input."""

    variable: str
    """The environment variable that overrides the default; a whole number in units of `unit`."""
    default: int
    name: str
    """The unit as messages spell it."""
    unit: int = 1
    """The number of pixels, bytes or things that the variable counts as 1."""
    error: type[GlesamError] = InputError

    @property
    def value(self) -> int:
        """Return the limit in pixels, bytes or things.

        Raises:
            InputError: the environment variable is not a whole number of 1 or more.
        """
        text = os.environ.get(self.variable)
        if not text:
            return self.default * self.unit
        if not (text.isascii() and text.isdigit() and len(text) < 16 and int(text) > 0):
            raise InputError(
                f"{self.variable}={text!r}: must be a whole number of {self.name}, 1 or more"
            )
        return int(text) * self.unit

    def check(self, size: int, where: str) -> None:
        """Refuse a size above the limit.

        Args:
            size: the size in pixels, bytes or things.
            where: what is too large, and how large, as the start of the message.

        Raises:
            GlesamError: the size exceeds the limit; its type is `error`.
        """
        limit = self.value
        if size > limit:
            raise self.error(
                f"{where}, more than the limit of {limit // self.unit} {self.name}; set "
                f"{self.variable} to a larger number if there is memory for it"
            )


_MIB = 1 << 20

SIDE = Limit("GLESAM_MAX_SIDE", 1 << 24, "pixels per side")
MEGAPIXELS = Limit("GLESAM_MAX_MEGAPIXELS", 512, "megapixels (of 1024 x 1024 pixels)", _MIB)
"""The default, 512, is six times Pillow's own limit. glesam-run takes about 12 bytes per pixel."""
IMAGES = Limit("GLESAM_MAX_IMAGES", 1_000_000, "images of one folder or pattern")
STDIN_BYTES = Limit("GLESAM_MAX_STDIN_MIB", 1024, "MiB", _MIB)
"""The image file on standard input, which is kept in memory as it is."""
PROMPTS = Limit("GLESAM_MAX_PROMPTS", 10_000, "prompts")
"""Each prompt of glesam-run keeps logits of up to 768 KiB and becomes files of its own."""
POINTS = Limit("GLESAM_MAX_POINTS", 4096, "points per prompt")
"""The memory of a decoder's attention grows with the square of the points: 0.8 GB for 4096."""
GRID_POINTS = Limit("GLESAM_MAX_GRID_POINTS", 1 << 24, "points in all grids")
CROPS = Limit("GLESAM_MAX_CROPS", 1 << 20, "crops")
"""Nine layers have 349,525 crops; each takes a run of the encoder and 0.2 KB."""
JSON_BYTES = Limit("GLESAM_MAX_JSON_MIB", 32, "MiB", _MIB)
MANIFEST_BYTES = Limit("GLESAM_MAX_MANIFEST_MIB", 16, "MiB", _MIB, BundleError)
"""The manifest of the largest models has 0.1 MiB, and more with the images of a calibration."""
GOLDEN_BYTES = Limit("GLESAM_MAX_GOLDEN_MIB", 512, "MiB", _MIB, BundleError)
"""The golden file of the largest models has about 60 MiB."""
PICKLE_BYTES = Limit("GLESAM_MAX_PICKLE_MIB", 4, "MiB", _MIB, CheckpointError)
"""The pickle of a checkpoint, without its numbers; 1 MiB describes some 5000 tensors. Each of its
bytes can take 120 bytes of memory."""
EMBEDDING_BYTES = Limit("GLESAM_MAX_EMBEDDING_MIB", 256, "MiB", _MIB)
"""The embedding of an image has 4 MiB with SAM and 16 MiB with SAM 2."""


def check_picture(width: int, height: int, where: str) -> None:
    """Refuse an image with a side or a number of pixels above the limit.

    Raises:
        InputError: the image is too large.
    """
    size = f"{where}: {width} x {height} pixels"
    SIDE.check(max(width, height), size)
    MEGAPIXELS.check(width * height, size)

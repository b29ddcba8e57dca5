"""Convert samples of more than 8 bits to 8 bits, by the number of bits that they really use.

A file of 16 bits a sample may hold the 10 or 12 bits of a camera or a scanner. Few formats say so:
the number comes from the file's tags, otherwise from the caller, and otherwise it is 16 and a note
says if that looks wrong.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from glesam_runtime.errors import InputError

# The command line imports this file for `Depth`, and `--help` needs no numpy.
if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


class Depth(str, Enum):
    """Bits that the gray samples of a 16-bit file use, as an option."""

    AUTO = "auto"
    """By the tags of a TIFF, otherwise 16."""
    BITS_16 = "16"
    BITS_12 = "12"
    BITS_10 = "10"
    BITS_8 = "8"


_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_MAX_SAMPLE = 258, 262, 281
_MIN_IS_WHITE = 0


def check_depth(depth: int | str) -> int | None:
    """Return the bits of a `Depth`, also given as its value or a number, or None for auto.

    Raises:
        InputError: it is another value.
    """
    value = depth.value if isinstance(depth, Depth) else str(depth)
    known = [one.value for one in Depth]
    if value not in known:
        raise InputError(f"depth {depth}: must be one of {', '.join(known)}")
    return None if value == Depth.AUTO.value else int(value)


def is_deep_colour(image: Image.Image) -> bool:
    """Return whether Pillow will cut 16-bit samples of several bands to their upper 8 bits.

    The image must not be decoded yet.
    """
    if len(image.getbands()) == 1:
        return False
    arguments = [tile[3] for tile in image.tile]  # type: ignore[attr-defined]
    raw_modes = [one[0] if isinstance(one, tuple) and one else one for one in arguments]
    return any(";16" in str(mode) for mode in raw_modes)


def colour_note(image: Image.Image, file: Path, bits: int | None) -> str | None:
    """Return a note if 16-bit colour looks as if it has fewer bits; Pillow has cut it to 8.

    Raises:
        InputError: the caller asks for fewer than 16 bits, which are gone.
    """
    if bits not in (None, 16):
        raise InputError(
            f"{file}: colour with 16 bits a sample is read by its upper 8 bits, so a depth of "
            f"{bits} cannot be applied; save it with 8 bits a sample"
        )
    import numpy as np

    highest = max(int(np.asarray(image.getchannel(band)).max()) for band in _colours(image))
    if bits is not None or not 0 < highest < 16:
        return None
    return (
        f"{file}: its 16-bit samples stay below {256 * (highest + 1)} of 65535, so the image is "
        "nearly black; if they use fewer bits, save it with 8 bits a sample"
    )


def _colours(image: Image.Image) -> list[str]:
    return [band for band in image.getbands() if band != "A"]


def gray_to_8_bits(
    image: Image.Image, file: Path, bits: int | None
) -> tuple[NDArray[np.uint8], str | None]:
    """Return a decoded one-channel image of 16-bit, 32-bit or float samples as uint8 [H, W].

    Args:
        image: the image, of mode F or I.
        file: its name in messages.
        bits: the depth that the caller gives; None takes the file's tags, otherwise 16.

    Returns:
        The image, and a note if its range is that of fewer bits than it was read with.

    Raises:
        InputError: samples are NaN or infinite, or exceed the depth.
    """
    import numpy as np

    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(
            f"{file}: contains NaN or infinite samples; save it with 8 or 16 bits a sample"
        )
    note = None
    if image.mode == "F":
        full = next((float(top) for top in (1, 255, 65535) if high <= top), 0.0)
        remedy = "save it with 8 or 16 bits a sample"
    else:
        used = bits or _declared_bits(image)
        full = float(2**used - 1)
        remedy = "save it with 8 or 16 bits a sample"
        if low >= 0 and full < high <= 65535:
            remedy = f"that is more than {used} bits; read it with --depth 16"
        elif used == 16 and bits is None:
            note = _range_note(image, file, low, high)
    if low < 0 or high > full:
        raise InputError(f"{file}: samples from {low:g} to {high:g}; {remedy}")
    gray = np.empty(values.shape, np.uint8)
    # Pillow inverts such files of 8 bits, but none of more.
    inverted = _tag(image, _TIFF_PHOTOMETRIC) == _MIN_IS_WHITE
    step = max(1, (1 << 22) // values.shape[1])
    for top in range(0, len(values), step):  # in strips, without a float copy of a large image
        strip = values[top : top + step].astype(np.float32)
        if inverted:
            strip = np.float32(full) - strip
        gray[top : top + step] = np.rint(strip * np.float32(255 / full))
    return gray, note


def _declared_bits(image: Image.Image) -> int:
    """Return the bits of an integer sample by a TIFF's tags, otherwise 16."""
    bits = _tag(image, _TIFF_BITS)
    if bits is not None and bits < 16:
        return bits
    # A statistic by the standard, but scanners write the largest number of their depth.
    highest = _tag(image, _TIFF_MAX_SAMPLE)
    depth = (highest or 0).bit_length()
    return depth if 8 <= depth < 16 and highest == 2**depth - 1 else 16


def _tag(image: Image.Image, number: int) -> int | None:
    """Return the first value of a TIFF tag, or None if there is none."""
    tags = getattr(image, "tag_v2", None)
    value = None if tags is None else tags.get(number)
    if isinstance(value, tuple):
        value = value[0] if value else None
    return None if value is None else int(value)


def _range_note(image: Image.Image, file: Path, low: float, high: float) -> str | None:
    """Return a note if the samples leave more than the upper 4 of 16 bits unused."""
    if not 0 < high < 2**12:
        return None
    bits = next(bits for bits in (8, 10, 12) if high < 2**bits)
    looks = "white" if _tag(image, _TIFF_PHOTOMETRIC) == _MIN_IS_WHITE else "black"
    return (
        f"{file}: its 16-bit samples are {low:g} to {high:g} of 65535, so the image is nearly "
        f"{looks}; if they use {bits} bits, give --depth {bits} (read_image: depth={bits})"
    )

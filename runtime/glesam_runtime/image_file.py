"""Read an image file as a viewer shows it."""

from __future__ import annotations

import ctypes
import importlib
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from glesam_runtime.errors import InputError
from glesam_runtime.input_paths import refuse_special
from glesam_runtime.limits import check_picture
from glesam_runtime.metered_stream import MeteredStream
from glesam_runtime.sample_depth import (
    check_depth,
    colour_note,
    gray_to_8_bits,
    is_deep_colour,
)
from glesam_runtime.unknown_image import explain, is_heic

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_COMMON_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM")
"""Formats that Pillow knows without importing its other plugins."""
_OTHER_FORMATS = (
    "WEBP",
    "TIFF",
    "AVIF",
    "HEIF",
    "MPO",
    "JPEG2000",
    "DIB",
    "TGA",
    "PCX",
    "SGI",
    "ICO",
    "DDS",
    "QOI",
    "PSD",
)
"""The other formats that are opened: pictures that Pillow or pillow-heif decodes itself. EPS would
start Ghostscript, whatever the file's name, and others start a program or are no pictures."""
_bomb_limit_lock = threading.Lock()


def read_image(path: str | os.PathLike[str], depth: int | str = "auto") -> NDArray[np.uint8]:
    """Read an image file as a viewer shows it.

    - EXIF orientation is applied. A malformed EXIF block counts as none.
    - Transparency is shown on white.
    - Gray, palette, CMYK and 1-bit images become RGB.
    - 16-bit samples are scaled to 8 bits by their depth. Float samples are read as 0 to 1, 0 to 255
      or 0 to 65535, whichever is the smallest range that contains them.
    - The first of several frames is read.

    Args:
        path: the image file.
        depth: bits that the gray samples of a 16-bit file use: 16, 12, 10 or 8. "auto" takes the
            tags of a TIFF, otherwise 16.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        InputError: the file is missing, unreadable, empty, truncated or not an image, the image
            exceeds a size limit (`limits`), or its samples exceed `depth`.
    """
    return read_image_with_note(path, depth)[0]


def read_image_with_note(
    path: str | os.PathLike[str], depth: int | str = "auto", content: bytes | None = None
) -> tuple[NDArray[np.uint8], str | None]:
    """Return the result of `read_image`, and a note if the samples seem to use fewer bits.

    `content` are the bytes of an image from standard input. `path` is then its name in messages.
    """
    bits = check_depth(depth)
    file = Path(path)
    if content is None and not file.exists():
        raise InputError(f"{file}: no such file")
    if content is None and file.is_dir():
        raise InputError(f"{file}: a folder, not an image")
    try:
        if content == b"" or (content is None and file.is_file() and file.stat().st_size == 0):
            raise InputError(f"{file}: empty file")
        with open_picture(file, content) as image:
            width, height = image.size
            if width == 0 or height == 0:
                raise InputError(f"{file}: {width} x {height} pixels, but it needs at least 1 x 1")
            check_picture(width, height, str(file))
            deep_colour = is_deep_colour(image)
            upright = load_upright(image)
            rgb, note = _to_rgb(upright, file, bits)
            if deep_colour:
                note = colour_note(upright, file, bits)
            return np.asarray(rgb, dtype=np.uint8), note
    except InputError:
        raise
    except Exception as error:  # decoders raise many types for malformed bytes
        raise InputError(f"{file}: cannot be read as an image ({_brief(error)})") from error


def pixels_of(path: str | os.PathLike[str], content: bytes | None = None) -> int:
    """Return the number of pixels in an image file's header, or 0 if `read_image` would refuse it.

    The image is not decoded.
    """
    try:
        with open_picture(Path(path), content) as image:
            width, height = image.size
            check_picture(width, height, str(path))
    except Exception:  # noqa: BLE001 - `read_image` reports the error
        return 0
    return width * height


@contextmanager
def open_picture(file: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """Open an image without Pillow's process-wide size limit. The caller checks the size.

    Args:
        file: the image file, or its name in messages if there is `content`.
        content: the bytes of an image that is not in a file.

    Raises:
        InputError: it is a FIFO, a socket or a device, or in none of the formats of this program.
    """
    if content is None:
        refuse_special(file)
    # Given a path, Pillow maps a raw TIFF into memory and mistakes its width for its height if the
    # orientation swaps them.
    with file.open("rb") if content is None else io.BytesIO(content) as opened:
        stream = cast("BinaryIO", metered := MeteredStream(opened, str(file)))
        with _bomb_limit_lock:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = _open_known(stream)
            except UnidentifiedImageError as error:
                raise InputError(f"{file}: {explain(stream)}") from error
            finally:
                Image.MAX_IMAGE_PIXELS = limit
        metered.opened()
        with image:
            yield image


def _open_known(content: BinaryIO) -> Image.Image:
    """Open an image in one of the formats of this program."""
    try:
        return Image.open(content, formats=_COMMON_FORMATS)
    except UnidentifiedImageError:
        Image.init()
        content.seek(0)
        if is_heic(content.read(12)):
            _add_heic()
        content.seek(0)
        known = [name for name in _OTHER_FORMATS if name in Image.OPEN]
        return Image.open(content, formats=known)


def _add_heic() -> None:
    """Let Pillow open HEIC images, if pillow-heif is installed."""
    try:
        plugin = importlib.import_module("pillow_heif")
    except ModuleNotFoundError:
        return
    plugin.register_heif_opener()


def load_upright(image: Image.Image) -> Image.Image:
    """Decode an opened image and turn it as its EXIF orientation says."""
    if image.format == "TIFF":
        _silence_libtiff()
    # Pillow turns a TIFF while it decodes it, and then removes the tag.
    image.load()
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


@cache
def _silence_libtiff() -> None:
    """Keep libtiff from printing its own errors on stderr, beside the exception that Pillow raises.

    Pillow's binary for Windows does not show libtiff's functions; there the lines stay.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(importlib.import_module("PIL._imaging").__file__).TIFFSetErrorHandler(None)


def is_lossy(image: Image.Image, file: Path) -> bool:
    """Return whether the compression of an opened image file changes pixels."""
    if image.format == "WEBP":
        return _webp_codec(file.read_bytes()) != b"VP8L"
    return image.format in ("JPEG", "MPO", "AVIF", "HEIF")


def _webp_codec(content: bytes) -> bytes:
    """Return the name of the chunk with the first frame: VP8 (lossy) or VP8L (lossless)."""
    start = 12
    while start + 8 <= len(content):
        name = content[start : start + 4]
        if name in (b"VP8 ", b"VP8L"):
            return name
        size = int.from_bytes(content[start + 4 : start + 8], "little")
        # A frame of an animation has a header of 16 bytes, then chunks of its own.
        start += 8 + (16 if name == b"ANMF" else size + size % 2)
    return b""


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the (height, width) that `load_upright` would give an image that is not decoded."""
    width, height = image.size
    tags = getattr(image, "tag_v2", None)
    if image.format == "TIFF" and tags is not None:
        # `image.size` of a TIFF is turned already in some versions of Pillow. The tags never are.
        width, height = int(tags[_TIFF_WIDTH]), int(tags[_TIFF_HEIGHT])
    return (width, height) if _orientation(image) in _SIDEWAYS else (height, width)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, or 1 if the EXIF block is malformed, as viewers do."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - Pillow raises many types for malformed blocks
        return 1


def _to_rgb(image: Image.Image, file: Path, bits: int | None) -> tuple[Image.Image, str | None]:
    """Convert a decoded image of any Pillow mode to 8-bit RGB, with a note on its depth."""
    if image.mode.startswith("I") or image.mode == "F":
        gray, note = gray_to_8_bits(image, file, bits)
        return Image.fromarray(gray).convert("RGB"), note
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB"), None
    return image if image.mode == "RGB" else image.convert("RGB"), None


def _brief(error: Exception) -> str:
    """Return the first line of an exception's message, or its type's name without a message."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__

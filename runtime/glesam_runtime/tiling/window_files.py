"""Open a picture for reading windows of it, by the reader that its file allows."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from glesam_runtime.errors import InputError
from glesam_runtime.image_file import open_picture, read_image_with_note
from glesam_runtime.limits import MEGAPIXELS, SIDE
from glesam_runtime.sample_depth import check_depth
from glesam_runtime.tiling import raster
from glesam_runtime.tiling.raw_tiff import open_raw_tiff
from glesam_runtime.tiling.windows import ArrayWindows

if TYPE_CHECKING:
    import os

    import numpy as np
    from numpy.typing import NDArray

    from glesam_runtime.tiling.windows import Windows

INSTALL = "pip install 'glesam-runtime[geo]'"
_EXIF_ORIENTATION = 0x0112
_SAME_COLOURS = ("RGB", "L")
"""The modes of Pillow in which rasterio gives the same colours. Of a TIFF, the bands tell."""


def open_windows(
    image: str | os.PathLike[str] | NDArray[np.uint8],
    depth: int | str = "auto",
    content: bytes | None = None,
) -> Windows:
    """Open a picture for reading windows of it.

    - An array is used as it is. It may be a `numpy.memmap`.
    - A TIFF, PNG, JPEG or JPEG 2000 file is read in windows if rasterio is installed.
    - An uncompressed TIFF of 8 bits, gray or RGB, is read in windows without it.
    - Any other file is read whole, if `limits.MEGAPIXELS` allows that: compressed TIFF files
      without rasterio, other formats, float samples, palettes, CMYK, an orientation to be applied,
      and standard input.

    Args:
        image: a file, or pixels: uint8 [H, W, 3], RGB.
        depth: as in `image_file.read_image`.
        content: the bytes of an image from standard input.

    Raises:
        InputError: the picture cannot be read, or it is too large to be read whole.
    """
    if not isinstance(image, (str, Path)) and not hasattr(image, "__fspath__"):
        return ArrayWindows(image)
    path, bits = Path(image), check_depth(depth)
    if content is None:
        with suppress(FileNotFoundError, IsADirectoryError):  # read_image says which
            opened = _in_windows(path, bits)
            if opened is not None:
                SIDE.check(
                    max(opened.width, opened.height),
                    f"{path}: {opened.width} x {opened.height} pixels",
                )
                return opened
    try:
        whole, note = read_image_with_note(path, depth, content)
    except InputError as error:
        if MEGAPIXELS.variable not in str(error) or raster.is_installed():
            raise
        raise InputError(
            f"{error}; or read it in windows: {INSTALL}, or save it as an uncompressed TIFF"
        ) from error
    return ArrayWindows(whole, note)


def _in_windows(path: Path, bits: int | None) -> Windows | None:
    """Return a reader of windows, or None for a picture that only Pillow reads as it is shown."""
    kind, raw, turned = None, None, False
    try:
        with open_picture(path) as image:
            kind, mode = image.format, image.mode
            turned = int(image.getexif().get(_EXIF_ORIENTATION, 1)) not in (0, 1)
            if not turned:
                raw = open_raw_tiff(path, image)
    except (FileNotFoundError, IsADirectoryError):
        raise
    except Exception:  # noqa: BLE001 - a TIFF that Pillow cannot open may be one of rasterio's
        kind, mode = "TIFF", ""
    if turned or kind not in raster.DRIVERS or (kind != "TIFF" and mode not in _SAME_COLOURS):
        return None
    if raster.is_installed():
        found = raster.open_raster(path, str(kind), bits)
        if found is not None:
            if raw is not None:
                raw.close()
            return found
    return raw

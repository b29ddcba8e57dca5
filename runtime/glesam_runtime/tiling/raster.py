"""Read windows of a GeoTIFF, PNG, JPEG or JPEG 2000 file through rasterio."""

from __future__ import annotations

import importlib
import math
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from glesam_runtime.everything.crops import Box

DRIVERS = {"TIFF": "GTiff", "PNG": "PNG", "JPEG": "JPEG", "JPEG2000": "JP2OpenJPEG"}
"""The formats that are opened, by Pillow's name, and GDAL's driver for each. Files of others may
name further files and addresses."""
_CACHE_MIB = 64
"""Memory of GDAL's cache of blocks, which is otherwise a twentieth of the machine's."""
_LOOK = 512
"""Side in pixels of the part in the middle whose samples tell how many bits they use."""


@dataclass(frozen=True, eq=False)
class RasterWindows:
    """Parts of a file that rasterio has opened."""

    path: Path
    dataset: Any
    bands: tuple[int, ...]
    """Numbers of the bands of gray, or of red, green and blue."""
    alpha: int | None
    """Number of the band of opacity."""
    full: int
    """The sample that becomes 255."""
    note: str | None

    @property
    def height(self) -> int:
        """Return the height of the picture in pixels."""
        return int(self.dataset.height)

    @property
    def width(self) -> int:
        """Return the width of the picture in pixels."""
        return int(self.dataset.width)

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return a part of the picture, uint8 [h, w, 3], RGB. Transparency is shown on white.

        Raises:
            InputError: the part cannot be read, or samples exceed the depth.
        """
        rgb = self._scaled(self.bands, box)
        if self.alpha is not None:
            opacity = self._scaled((self.alpha,), box)[0].astype(np.float32) / 255
            rgb = np.rint(255 + (rgb - np.float32(255)) * opacity).astype(np.uint8)
        if len(rgb) == 1:
            rgb = np.repeat(rgb, 3, axis=0)
        return np.ascontiguousarray(rgb.transpose(1, 2, 0))

    def close(self) -> None:
        """Close the file."""
        self.dataset.close()

    def _scaled(self, bands: tuple[int, ...], box: Box) -> NDArray[np.uint8]:
        values = _samples(self.path, self.dataset, bands, box)
        if values.dtype == np.uint8:
            return values
        high = int(values.max())
        if high > self.full:
            raise InputError(
                f"{self.path}: samples up to {high}, more than {self.full.bit_length()} bits; "
                "read it with --depth 16"
            )
        scaled = np.rint(values.astype(np.float32) * np.float32(255 / self.full))
        return np.asarray(scaled, np.uint8)


def is_installed() -> bool:
    """Return whether rasterio can be imported."""
    with suppress(ImportError):
        importlib.import_module("rasterio")
        return True
    return False


def open_raster(path: Path, kind: str, bits: int | None) -> RasterWindows | None:
    """Return a reader of windows, or None for a file of another format or kind.

    Args:
        path: the file.
        kind: its format, a key of `DRIVERS`.
        bits: the bits that samples of 16 bits use; None takes the file's tags, otherwise 16.
    """
    rasterio: Any = importlib.import_module("rasterio")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.Env(GDAL_CACHEMAX=_CACHE_MIB):
            try:
                dataset = rasterio.open(path.absolute(), driver=DRIVERS[kind])
            except rasterio.errors.RasterioError:
                return None
    colours = [colour.name for colour in dataset.colorinterp]
    if len(set(dataset.dtypes)) != 1 or dataset.dtypes[0] not in ("uint8", "uint16"):
        dataset.close()
        return None
    if {"palette", "cyan", "hue", "Y"} & set(colours):
        dataset.close()
        return None
    named = [colours.index(name) + 1 for name in ("red", "green", "blue") if name in colours]
    if len(named) != 3:
        named = [1, 2, 3] if dataset.count >= 3 else [1]
    alpha = colours.index("alpha") + 1 if "alpha" in colours else None
    used = 16
    if dataset.dtypes[0] == "uint16":
        declared = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "16")
        used = bits or int(declared)
    note = _note(path, dataset, named) if used == 16 and bits is None else None
    return RasterWindows(path, dataset, tuple(named), alpha, 2**used - 1, note)


def _note(path: Path, dataset: Any, bands: list[int]) -> str | None:
    """Return a note if the samples in the middle leave more than the upper 4 of 16 bits unused."""
    if dataset.dtypes[0] == "uint8":
        return None
    left, top = max(0, (dataset.width - _LOOK) // 2), max(0, (dataset.height - _LOOK) // 2)
    box = left, top, min(dataset.width, left + _LOOK), min(dataset.height, top + _LOOK)
    high = int(_samples(path, dataset, tuple(bands), box).max())
    if not 0 < high < 2**12:
        return None
    bits = max(8, 2 * math.ceil(high.bit_length() / 2))
    return (
        f"{path}: its 16-bit samples reach {high} of 65535 in the middle, so the image is nearly "
        f"black; if they use {bits} bits, give --depth {bits} (read_image: depth={bits})"
    )


def _samples(path: Path, dataset: Any, bands: tuple[int, ...], box: Box) -> NDArray[Any]:
    """Return the samples of bands in a part, [bands, h, w]."""
    rasterio: Any = importlib.import_module("rasterio")
    x0, y0, x1, y1 = box
    try:
        with rasterio.Env(GDAL_CACHEMAX=_CACHE_MIB):
            values: NDArray[Any] = dataset.read(list(bands), window=((y0, y1), (x0, x1)))
    except rasterio.errors.RasterioError as error:
        raise InputError(f"{path}: cannot be read as an image ({error})") from error
    return values

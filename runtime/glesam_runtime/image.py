"""From an image file to the encoder's input tensor."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from glesam_runtime.errors import InputError
from glesam_runtime.resample import resize_bilinear

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from glesam_runtime.manifest import Preprocessing, Resize

MAX_PIXELS = 512 * 1024 * 1024
"""The largest image that is read, about 2 GiB decoded; Pillow's own limit is a sixth of it."""

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
_TIFF_BITS_PER_SAMPLE = 258
_bomb_limit_lock = threading.Lock()


@dataclass(frozen=True)
class Geometry:
    """How an image lies in the graph's square; sizes are (height, width) in pixels."""

    image_size: int
    """S, the square's side."""
    resized: tuple[int, int]
    """What the image fills of the square, from its top left corner."""
    original: tuple[int, int]


@dataclass(frozen=True)
class Preprocessed:
    """An image as the encoder takes it."""

    tensor: NDArray[np.float32]
    """[1, 3, S, S], normalised, zeros where the image does not reach."""
    geometry: Geometry


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read an image file as a viewer shows it.

    EXIF orientation is applied (an unreadable EXIF block counts as none), transparency shows
    white behind it, 16-bit samples are scaled to 8 bits by their depth, gray, palette, CMYK and
    1-bit become RGB, and of several frames the first is taken. Float samples are read as 0..1,
    0..255 or 0..65535, the smallest range that holds them.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        InputError: missing, unreadable, empty, truncated, not an image, or above MAX_PIXELS.
    """
    file = Path(path)
    if not file.exists():
        raise InputError(f"{file}: no such file")
    if file.is_dir():
        raise InputError(f"{file}: a folder, not an image")
    try:
        if file.stat().st_size == 0:
            raise InputError(f"{file}: empty file")
        with _open(file) as image:
            width, height = image.size
            if width == 0 or height == 0:
                raise InputError(f"{file}: an image of {width} x {height} pixels")
            if width * height > MAX_PIXELS:
                raise InputError(
                    f"{file}: {width} x {height} pixels, more than the {MAX_PIXELS >> 20} "
                    "megapixels this program reads; scale it down"
                )
            orientation = _orientation(image)
            image.load()
            rgb = _to_rgb(image, file)
            if orientation in _TURNS:
                rgb = rgb.transpose(_TURNS[orientation])
            return np.asarray(rgb, dtype=np.uint8)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{file}: not an image in a known format") from error
    except Exception as error:  # decoders raise whatever their bytes lead them to
        raise InputError(f"{file}: cannot be read as an image ({_brief(error)})") from error


def pixels_of(path: str | os.PathLike[str]) -> int:
    """Pixels an image file says it has, without decoding it; 0 where `read_image` would refuse."""
    try:
        with _open(Path(path)) as image:
            width, height = image.size
    except Exception:  # noqa: BLE001 - whatever it is, `read_image` says it
        return 0
    return width * height if width * height <= MAX_PIXELS else 0


def check_image(image: object) -> NDArray[np.uint8]:
    """Accept an image array: uint8 [H, W, 3] with at least one pixel.

    Raises:
        InputError: another type, dtype or shape.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"image: a uint8 array [H, W, 3] is needed, not {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"image: {image.dtype} {list(image.shape)}, but uint8 [H, W, 3] is needed; "
            "glesam_runtime.image.read_image reads any file into it"
        )
    if image.size == 0:
        raise InputError(f"image: {image.shape[1]} x {image.shape[0]} pixels, it holds nothing")
    return image


def resized_size(height: int, width: int, image_size: int) -> tuple[int, int]:
    """(height, width) after the longest side is scaled to `image_size`.

    The other side is rounded half up, but never to nothing: an image 20,000 times as wide as
    high keeps a row of one pixel.
    """
    scale = image_size / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def geometry_of(
    height: int, width: int, image_size: int, resize: Resize = "longest_side"
) -> Geometry:
    """How an image of this size lies in a square of side `image_size`."""
    square = (image_size, image_size)
    resized = square if resize == "square" else resized_size(height, width, image_size)
    return Geometry(image_size, resized, (height, width))


def preprocess(image: NDArray[np.uint8], rules: Preprocessing) -> Preprocessed:
    """Resize, normalise and pad an image as the manifest says.

    Args:
        image: uint8 [H, W, 3], RGB.
        rules: the manifest's preprocessing.

    Raises:
        InputError: not such an array.
    """
    image = check_image(image)
    size = rules.image_size
    geometry = geometry_of(image.shape[0], image.shape[1], size, rules.resize)
    new_height, new_width = geometry.resized
    if rules.kernel == "float_bilinear":
        values = resize_bilinear(image, new_height, new_width)
    else:
        values = np.asarray(_resize_fixed_point(image, new_height, new_width), dtype=np.float32)
    tensor = np.zeros((1, 3, size, size), np.float32)
    # Channel by channel into place: over [h, w, 3] numpy would work in runs of three numbers.
    for channel, (mean, std) in enumerate(zip(rules.mean, rules.std, strict=True)):
        plane = tensor[0, channel, :new_height, :new_width]
        np.subtract(values[..., channel], np.float32(mean), out=plane)
        np.divide(plane, np.float32(std), out=plane)
    return Preprocessed(tensor, geometry)


def _resize_fixed_point(image: NDArray[np.uint8], height: int, width: int) -> Image.Image:
    """Pillow's bilinear resizing, an axis at a time in the order of Pillow 13.

    What is rounded between the axes makes their order show, by a level here and there, and earlier
    Pillows always took the width first.
    """
    lost_height, lost_width = image.shape[0] - height, image.shape[1] - width
    height_first = lost_height > 0 and lost_height > 2 * lost_width
    between = (image.shape[1], height) if height_first else (width, image.shape[0])
    half = Image.fromarray(image).resize(between, Image.Resampling.BILINEAR)
    return half.resize((width, height), Image.Resampling.BILINEAR)


@contextmanager
def _open(file: Path) -> Iterator[Image.Image]:
    """Open an image whose size is judged here, not by Pillow's process-wide limit."""
    with _bomb_limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; viewers show a photo with a broken EXIF block unturned."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - any malformed block means: no orientation known
        return 1


def _to_rgb(image: Image.Image, file: Path) -> Image.Image:
    """8-bit RGB of a decoded image in any of Pillow's modes."""
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_gray_to_rgb(image, file)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_gray_to_rgb(image: Image.Image, file: Path) -> Image.Image:
    """One channel of 16-bit, 32-bit or float samples, scaled to 8 bits."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{file}: holds samples that are not finite numbers")
    if image.mode == "F":
        full = next((float(top) for top in (1, 255, 65535) if high <= top), 0.0)
    else:
        full = float(2 ** _sample_bits(image) - 1)
    if low < 0 or high > full:
        raise InputError(
            f"{file}: samples from {low:g} to {high:g}; save it with 8 or 16 bits a sample"
        )
    gray = np.empty(values.shape, np.uint8)
    step = max(1, (1 << 22) // values.shape[1])
    for top in range(0, len(values), step):  # strips: no float copy of a huge image
        strip = values[top : top + step].astype(np.float32)
        gray[top : top + step] = np.rint(strip * np.float32(255 / full))
    return Image.fromarray(gray).convert("RGB")


def _sample_bits(image: Image.Image) -> int:
    """Bits of an integer sample: what a TIFF declares below 16, else 16."""
    tags = getattr(image, "tag_v2", None)
    declared = tags.get(_TIFF_BITS_PER_SAMPLE, (16,)) if tags is not None else (16,)
    return min(16, int(declared[0]))


def _brief(error: Exception) -> str:
    """An exception's first line, or its name where it says nothing."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__

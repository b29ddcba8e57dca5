"""Turn an image into the encoder's input tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from msgspec import UnsetType
from PIL import Image
from PIL.Image import Resampling

from glesam_runtime.errors import InputError
from glesam_runtime.limits import check_picture
from glesam_runtime.resample import resize_bilinear

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.manifest import Preprocessing, Resize


@dataclass(frozen=True)
class Geometry:
    """The position of an image in the encoder's square input.

    Sizes are (height, width) in pixels.
    """

    image_size: int
    """S, the side of the square."""
    resized: tuple[int, int]
    """The part of the square that the image fills, from its top left corner."""
    original: tuple[int, int]
    """The size of the image before resizing."""


@dataclass(frozen=True)
class Preprocessed:
    """The encoder's input for an image."""

    tensor: NDArray[np.float32]
    """[1, 3, S, S], normalised; zeros beside the image."""
    geometry: Geometry


def check_image(image: object) -> NDArray[np.uint8]:
    """Return an image array unchanged if it is uint8 [H, W, 3] with at least one pixel.

    Raises:
        InputError: it has another type, dtype or shape, or exceeds `limits.MEGAPIXELS`.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"image: must be a uint8 array [H, W, 3], not {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"image: must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}; "
            "glesam_runtime.read_image returns such an array for any image file"
        )
    if image.size == 0:
        raise InputError(
            f"image: {image.shape[1]} x {image.shape[0]} pixels, but it needs at least 1 x 1"
        )
    check_picture(image.shape[1], image.shape[0], "image")
    return image


def resized_size(height: int, width: int, image_size: int) -> tuple[int, int]:
    """Return (height, width) after the longest side is scaled to `image_size`.

    The other side is rounded half up, but to at least 1, so that an image 20,000 times as wide as
    high keeps a row.
    """
    scale = image_size / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def geometry_of(
    height: int, width: int, image_size: int, resize: Resize = "longest_side"
) -> Geometry:
    """Return the position of an image of this size in a square of side `image_size`."""
    square = (image_size, image_size)
    resized = square if resize == "square" else resized_size(height, width, image_size)
    return Geometry(image_size, resized, (height, width))


def preprocess(image: NDArray[np.uint8], rules: Preprocessing) -> Preprocessed:
    """Resize, normalise and pad an image as the manifest says.

    Args:
        image: uint8 [H, W, 3], RGB.
        rules: the manifest's preprocessing.

    Raises:
        InputError: the image has another type, dtype or shape, or no pixels.
    """
    image = check_image(image)
    size = rules.image_size
    geometry = geometry_of(image.shape[0], image.shape[1], size, rules.resize)
    new_height, new_width = geometry.resized
    first = rules.first_resize
    if not isinstance(first, UnsetType):
        image = np.asarray(_resize_fixed_point(image, first.size, first.size, Resampling.BICUBIC))
    if rules.kernel == "float_bilinear":
        values = resize_bilinear(image, new_height, new_width)
    else:
        resized = _resize_fixed_point(image, new_height, new_width, Resampling.BILINEAR)
        values = np.asarray(resized, dtype=np.float32)
    tensor = np.zeros((1, 3, size, size), np.float32)
    # One channel at a time: on [h, w, 3] numpy's inner loops would run over only three numbers.
    for channel, (mean, std) in enumerate(zip(rules.mean, rules.std, strict=True)):
        plane = tensor[0, channel, :new_height, :new_width]
        np.subtract(values[..., channel], np.float32(mean), out=plane)
        np.divide(plane, np.float32(std), out=plane)
    return Preprocessed(tensor, geometry)


def _resize_fixed_point(
    image: NDArray[np.uint8], height: int, width: int, kernel: Resampling
) -> Image.Image:
    """Resize with one of Pillow's filters, one axis at a time, in the order of Pillow 13.

    Values are rounded between the axes, so their order changes some pixels by one level. Earlier
    versions of Pillow always resize the width first.
    """
    lost_height, lost_width = image.shape[0] - height, image.shape[1] - width
    height_first = lost_height > 0 and lost_height > 2 * lost_width
    between = (image.shape[1], height) if height_first else (width, image.shape[0])
    half = Image.fromarray(image).resize(between, kernel)
    return half.resize((width, height), kernel)

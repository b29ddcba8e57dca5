"""Read a mask file: binary, gray, palette or colour, with one object or many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from glesam_runtime.errors import InputError
from glesam_runtime.image import load_upright, open_picture

MAX_OBJECTS = 1000
"""Maximum number of values; a file with more is a photograph or damaged, not an instance map."""

_VOID = 255
"""Palette index of the border that PASCAL VOC draws around objects."""
_BLACK, _WHITE = 16, 239
"""Limits within which antialiasing and JPEG leave pixels that were 0 and 255."""

Masks = npt.NDArray[np.bool_]


def read_masks(path: Path) -> Masks:
    """Read a mask file as bool [K,H,W], one mask per object; K may be 0.

    - One value besides zero is one object.
    - A gray image whose shades between black and white lie only along edges (antialiasing, JPEG) is
      one object: the pixels above 127.
    - Any other gray, palette or colour image is an instance map, and each value but zero (palette:
      index; colour: any but black) is an object.
    - Transparent pixels are background. Index 255 of a palette image with other objects is the
      border of PASCAL VOC, which is not an object.

    Raises:
        InputError: the file cannot be read, is not an image, or has more than MAX_OBJECTS values.
    """
    try:
        with open_picture(path) as image:
            values, is_gray, void = _values(load_upright(image))
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not an image in a known format") from error
    except Exception as error:  # decoders raise errors of any type on damaged files
        raise InputError(f"{path}: cannot be read as a mask ({error})") from error

    lossy = path.suffix.lower() in (".jpg", ".jpeg")
    if is_gray and (lossy or _is_antialiased(values)):
        mask: Masks = (values > 127)[None]
        return mask if mask.any() else mask[:0]
    labels = np.unique(values)
    labels = labels[labels != 0]
    if void is not None and len(labels) > 1:
        labels = labels[labels != void]
    if len(labels) > MAX_OBJECTS:
        raise InputError(
            f"{path}: has {len(labels)} different values, so it is not a mask; "
            "save 0 and 255, or the number of the object in each pixel"
        )
    masks: Masks = values[None] == labels[:, None, None]
    return masks


def _values(image: Image.Image) -> tuple[npt.NDArray[np.int64], bool, int | None]:
    """Return the pixel values [H,W], whether they are gray from 0 to 255, and the void value."""
    alpha = None
    if image.mode in ("LA", "PA", "RGBA"):
        alpha = np.asarray(image.getchannel("A"))
        image = image.convert("L" if image.mode == "LA" else "RGB")
    void = None
    if image.mode == "P":
        if _has_gray_palette(image):
            image = image.convert("L")
        else:
            void = _VOID
    elif image.mode not in ("1", "L") and not image.mode.startswith("I"):
        image = image.convert("RGB")
    values = np.asarray(image).astype(np.int64)
    is_gray = image.mode == "L"
    if values.ndim == 3:
        red, green, blue = np.moveaxis(values, 2, 0)
        is_gray = bool((red == green).all() and (green == blue).all())
        values = red if is_gray else (red << 16) | (green << 8) | blue
    if alpha is not None:
        values[alpha <= 127] = 0
    return values, is_gray, void


def _has_gray_palette(image: Image.Image) -> bool:
    """Return whether the palette has only shades of gray, as some programs save gray images."""
    colours = np.asarray(image.getpalette("RGB"), np.int64).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _is_antialiased(values: npt.NDArray[np.int64]) -> bool:
    """Return whether gray values are one white object with soft edges, and not object numbers.

    The inside of an object has one value. Shades along an edge rarely fill 2 x 2 pixels.
    """
    if values.max(initial=0) < _WHITE:
        return False
    between = (values > _BLACK) & (values < _WHITE)
    if not between.any():
        return not ((values > 0) & (values < _WHITE)).any()
    corner = values[:-1, :-1]
    solid = (corner == values[1:, :-1]) & (corner == values[:-1, 1:]) & (corner == values[1:, 1:])
    # A pixel is inside if one of the four 2 x 2 squares around it has a single value.
    padded = np.pad(solid, 1)
    inside = padded[:-1, :-1] | padded[1:, :-1] | padded[:-1, 1:] | padded[1:, 1:]
    return bool(2 * np.count_nonzero(inside & between) < np.count_nonzero(between))

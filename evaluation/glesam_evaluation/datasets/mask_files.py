"""One mask file to the objects in it, whichever way the file says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from glesam_runtime.errors import InputError

MAX_OBJECTS = 1000
"""More values than this are a photograph or a damaged file, not an instance map."""

_VOID = 255
"""In a palette map: the border that PASCAL VOC draws around its objects."""
_BLACK, _WHITE = 16, 239
"""How far antialiasing and JPEG leave what was 0 and 255."""

Masks = npt.NDArray[np.bool_]


def read_masks(path: Path) -> Masks:
    """Read a mask file: bool [K,H,W], one mask for each object in it; K is 0 where none is.

    One value beside zero is one object, whatever the value. Gray from black to white is one object
    too where the shades between lie along edges only (antialiasing, JPEG), cut at 127. Any other
    gray, palette or colour image is an instance map: each value but zero (palette: index; colour:
    all but black) is an object. Transparent pixels are background; index 255 of a palette map with
    other objects is VOC's border and no object.

    Raises:
        InputError: unreadable, not an image, or more than MAX_OBJECTS different values.
    """
    try:
        with Image.open(path) as image:
            image.load()
            values, is_gray, void = _values(image)
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not an image in a known format") from error
    except Exception as error:  # decoders raise whatever their bytes lead them to
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
            f"{path}: {len(labels)} different values, which is no mask; "
            "save 0 and 255, or the number of its object in each pixel"
        )
    masks: Masks = values[None] == labels[:, None, None]
    return masks


def _values(image: Image.Image) -> tuple[npt.NDArray[np.int64], bool, int | None]:
    """Each pixel's value [H,W], whether it is a gray from 0 to 255, and the value for void."""
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
    """Whether the palette is shades of gray only, which some programs save gray images with."""
    colours = np.asarray(image.getpalette("RGB"), np.int64).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _is_antialiased(values: npt.NDArray[np.int64]) -> bool:
    """Whether gray values are one white object on black with soft edges, not object numbers.

    Objects have an inside of one value; shades along an edge rarely fill 2 x 2 pixels.
    """
    if values.max(initial=0) < _WHITE:
        return False
    between = (values > _BLACK) & (values < _WHITE)
    if not between.any():
        return not ((values > 0) & (values < _WHITE)).any()
    corner = values[:-1, :-1]
    solid = (corner == values[1:, :-1]) & (corner == values[:-1, 1:]) & (corner == values[1:, 1:])
    # A pixel is inside if any of the four 2 x 2 squares it is part of has one value.
    padded = np.pad(solid, 1)
    inside = padded[:-1, :-1] | padded[1:, :-1] | padded[:-1, 1:] | padded[1:, 1:]
    return bool(2 * np.count_nonzero(inside & between) < np.count_nonzero(between))

"""Read a mask file: binary, gray, palette or colour, with one object or many."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from glesam_evaluation.datasets.soft_masks import one_colour, soft_threshold, soft_values
from glesam_runtime.errors import InputError
from glesam_runtime.image_file import is_lossy, load_upright, open_picture

MAX_OBJECTS = 1000
"""Maximum number of values; a file with more is a photograph or damaged, not an instance map."""

_VOID = 255
"""Value of pixels to ignore: the border that PASCAL VOC draws around objects, and by the same
custom in gray maps whose objects are numbered from 1."""

Masks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Pixels:
    """The pixels of a mask file."""

    values: npt.NDArray[np.int64]
    """[H,W]: gray, number, palette index, or red, green and blue in one number."""
    gray: npt.NDArray[np.int64] | None
    """[H,W], 0 to 255: how much of the object each pixel holds, if the file can mean that."""
    is_colour: bool = False
    is_palette: bool = False


def read_masks(path: Path) -> Masks:
    """Read a mask file as bool [K,H,W], one mask per object; K may be 0.

    - One value besides zero is one object.
    - Shades of one gray or one colour that lie only along edges (antialiasing, resizing, JPEG), or
      that change smoothly (a probability map), are one object: the pixels above half of it.
    - Float samples from 0 to 1 are the probability of one object: the pixels above 0.5.
    - Any other gray, palette or colour image is an instance map, and each value but zero (palette:
      index; colour: any but black) is an object.
    - Transparent pixels are background. Value 255 is ignored in a palette image with other objects,
      and in a gray image whose other objects are numbered 1, 2, 3 and so on.

    Raises:
        InputError: the file cannot be read, is not an image, has more than MAX_OBJECTS values, or
            has several objects with soft edges.
    """
    values, labels = _read(path)
    masks: Masks = values[None] == labels[:, None, None]
    return masks


def count_objects(path: Path) -> int:
    """Return the number of masks that `read_masks` would return, without making them.

    Raises:
        InputError: as `read_masks`.
    """
    return len(_read(path)[1])


def _read(path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the values [H,W] of a mask file and those that are objects [K]."""
    try:
        with open_picture(path) as image:
            lossy = is_lossy(image, path)
            pixels = _pixels(load_upright(image), lossy, path)
    except InputError:
        raise
    except Exception as error:  # decoders raise errors of any type on damaged files
        raise InputError(f"{path}: cannot be read as a mask ({error})") from error

    threshold = None
    if pixels.gray is not None:
        try:
            threshold = soft_threshold(pixels.gray, lossy=lossy)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    if pixels.gray is not None and threshold is not None:
        inside = (pixels.gray > threshold).astype(np.int64)
        return inside, np.ones(int(inside.any()), np.int64)
    labels = np.unique(pixels.values)
    labels = labels[labels != 0]
    if len(labels) > 1 and (pixels.is_palette or _are_numbered(labels, pixels.is_colour)):
        labels = labels[labels != _VOID]
    if len(labels) > MAX_OBJECTS:
        raise InputError(
            f"{path}: has {len(labels)} different values, so it is not a mask; "
            "save 0 and 255, or the number of the object in each pixel"
        )
    soft = soft_values(pixels.values, labels)
    if soft:
        raise InputError(
            f"{path}: has {len(labels) - soft} objects and {soft} values that occur only along "
            "edges, so pixels of an edge cannot be told from objects; save it without antialiasing "
            "(nearest neighbour) and losslessly (PNG)"
        )
    return pixels.values, labels


def _pixels(image: Image.Image, lossy: bool, path: Path) -> _Pixels:
    """Return the pixels of a decoded image."""
    if image.mode == "F":
        return _probabilities(np.asarray(image), path)
    alpha = None
    if image.mode in ("LA", "PA", "RGBA"):
        alpha = np.asarray(image.getchannel("A"))
        image = image.convert("L" if image.mode == "LA" else "RGB")
    is_palette = image.mode == "P"
    if is_palette and _has_gray_palette(image):
        image, is_palette = image.convert("L"), False
    elif not is_palette and image.mode not in ("1", "L") and not image.mode.startswith("I"):
        image = image.convert("RGB")
    samples = np.asarray(image).astype(np.int64)
    if alpha is not None:
        samples[alpha <= 127] = 0
    if is_palette:
        return _Pixels(samples, None, is_palette=True)
    if samples.ndim == 2:
        gray = samples if image.mode == "L" else None
        return _Pixels(samples, gray)
    red, green, blue = np.moveaxis(samples, 2, 0)
    if (red == green).all() and (green == blue).all():
        return _Pixels(red, red)
    packed = (red << 16) | (green << 8) | blue
    return _Pixels(packed, one_colour(samples, lossy=lossy), is_colour=True)


def _probabilities(values: npt.NDArray[np.float32], path: Path) -> _Pixels:
    """Return float samples as the mask of one object, or as the numbers of objects."""
    finite = np.isfinite(values).all()
    if finite and values.size and values.min() >= 0 and values.max() <= 1:
        return _Pixels((values > 0.5).astype(np.int64), None)
    if finite and (values == np.rint(values)).all() and values.min() >= 0:
        return _Pixels(values.astype(np.int64), None)
    raise InputError(
        f"{path}: float samples are neither probabilities from 0 to 1 nor numbers of objects; "
        "save 0 and 255, or the number of the object in each pixel"
    )


def _are_numbered(labels: npt.NDArray[np.int64], is_colour: bool) -> bool:
    """Return whether 255 is no object, because the others are numbered from 1 without a gap."""
    numbers = labels[labels != _VOID]
    return (
        not is_colour
        and numbers[-1] < _VOID - 1
        and np.array_equal(numbers, np.arange(1, len(numbers) + 1))
    )


def _has_gray_palette(image: Image.Image) -> bool:
    """Return whether the palette has only shades of gray, as some programs save gray images."""
    colours = np.asarray(image.getpalette("RGB"), np.int64).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())

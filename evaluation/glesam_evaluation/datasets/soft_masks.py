"""Tell one object with soft edges from the numbers of several objects.

Drawing with antialiasing, resizing and lossy compression give an edge many shades, and a network's
probability map has shades everywhere. None of them is an object.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from glesam_runtime.errors import InputError

_BLACK = 16
"""What antialiasing and JPEG leave of a pixel that was 0; as much is left below the full value."""
_WHITE = 255 - _BLACK
_HALF = 127
"""Half of the full value 255."""
_PLATEAU = 0.2
"""Share of the object that has the same value, if that is its full value."""
_DARKEST, _SHADES = 64, 3
"""Full value and number of shades from which an object that is not white can have soft edges: the
values of less are small numbers of objects, whatever their shape."""
_SMOOTH_STEP = 2
"""Largest step between neighbours of a smooth map where it is so flat that pixels are equal."""
_SMOOTH_VALUES = 16
"""Number of shades that a smooth map has at least."""
_EXACT, _LOSSY = 12, 60
"""Distance of a pixel from the shades of one colour, in levels, that rounding and lossy
compression explain."""
_FEW = 8
"""Number of shades that the objects of an instance map may have along edges alone."""

Values = npt.NDArray[np.int64]


def soft_threshold(gray: Values, *, lossy: bool) -> int | None:
    """Return the value above which pixels belong to the one object with soft edges.

    Args:
        gray: values [H,W] from 0 to 255.
        lossy: whether the file's compression changes values.

    Returns:
        None if the values are those of several objects, or a single value.

    Raises:
        InputError: the values are soft, but nothing says which of them is the whole object.
    """
    counts = np.bincount(gray.ravel(), minlength=256)[1:]
    if not counts.any():
        return None
    highest = int(np.flatnonzero(counts)[-1]) + 1
    if lossy:
        bright = 255 if highest >= _WHITE else int(np.median(gray[gray > highest // 2]))
        return (bright - 1) // 2
    upper = highest // 2  # a filter leaves ones and twos around everything
    common = upper + int(counts[upper:].argmax()) + 1
    # Resizing with a sharp filter overshoots, so the highest value may not be the full one.
    is_plateau = counts[common - 1] >= _PLATEAU * counts.sum()
    full = common if is_plateau else highest
    full = 255 if full >= _WHITE else full
    low, high = min(_BLACK, full // 4), full - min(_BLACK, full // 4)
    between = ((gray > low) & (gray < high)) | (gray > full + _BLACK)
    if not between.any():
        # Nothing but white and what compression left near it.
        is_soft = full == 255 and not counts[:_BLACK].any()
    elif full < 255 and (full < _DARKEST or len(np.unique(gray[between])) < _SHADES):
        is_soft = False
    else:
        above = gray > full + _BLACK
        is_soft = _are_along_edges(gray, between) and not (
            above.any() and not _are_along_edges(gray, above)
        )
    if not is_soft:
        return None
    if full == 255 or (not is_plateau and highest > _HALF):
        return _HALF
    if is_plateau:
        return (full - 1) // 2
    raise InputError(
        f"has shades from 1 to {highest} without an area of one value, so its object cannot be "
        "told from its background; save 0 and 255"
    )


def _are_along_edges(gray: Values, between: npt.NDArray[np.bool_]) -> bool:
    """Return whether the shades in between lie along edges or change smoothly.

    The inside of an object has one value. Shades along an edge rarely fill 2 x 2 pixels.
    """
    corner = gray[:-1, :-1]
    solid = (corner == gray[1:, :-1]) & (corner == gray[:-1, 1:]) & (corner == gray[1:, 1:])
    # A pixel is inside if one of the four 2 x 2 squares around it has a single value.
    padded = np.pad(solid, 1)
    inside = padded[:-1, :-1] | padded[1:, :-1] | padded[:-1, 1:] | padded[1:, 1:]
    flat = np.isin(gray, _smooth_values(gray))
    objects = inside & between & ~flat
    return bool(2 * np.count_nonzero(objects) < np.count_nonzero(between))


def _smooth_values(gray: Values) -> Values:
    """Return the values whose neighbours nearly always differ from them by a step or two.

    They are none if they are few: objects that touch may be numbered 1, 2 and 3.
    """
    near, steps = np.zeros(256), np.zeros(256)
    for first, second in ((gray[1:], gray[:-1]), (gray[:, 1:], gray[:, :-1])):
        step = np.abs(first - second)
        for side in (first, second):
            steps += np.bincount(side[step > 0], minlength=256)
            near += np.bincount(side[(step > 0) & (step <= _SMOOTH_STEP)], minlength=256)
    smooth = np.flatnonzero((steps > 0) & (near >= 0.9 * steps))
    return smooth if len(smooth) >= _SMOOTH_VALUES else smooth[:0]


def one_colour(samples: Values, *, lossy: bool) -> Values | None:
    """Return how much each pixel has of an image's one colour, as values [H,W] from 0 to 255.

    Args:
        samples: red, green and blue [H,W,3].
        lossy: whether the file's compression changes values.

    Returns:
        None if there are pixels that no mixture of black and the commonest colour explains.
    """
    packed = (samples[..., 0] << 16) | (samples[..., 1] << 8) | samples[..., 2]
    seen, counts = np.unique(packed[packed > 0], return_counts=True)
    if lossy:  # a colour is scattered over its neighbours, so its brightest part stands for it
        bright = samples.sum(axis=2)
        inside = samples[bright > 0.75 * bright.max()]
        colour = np.median(inside, axis=0)
    else:
        common = int(seen[counts.argmax()])
        colour = np.asarray([common >> 16, common >> 8 & 255, common & 255], np.float64)
    share = np.clip(samples @ colour / (colour @ colour), 0, None)
    distance = np.abs(samples - share[..., None] * colour).max(axis=2)
    tolerance = _LOSSY if lossy else _EXACT
    others = (distance > tolerance) | (share > 1.5)
    if lossy:  # colours have half the resolution, so edges have other ones; 3 x 3 pixels do not
        padded = np.pad(others, 1)
        height, width = others.shape
        for row in range(3):
            for column in range(3):
                others &= padded[row : row + height, column : column + width]
    if np.count_nonzero(others) > (0.005 * np.count_nonzero(packed) if lossy else 0):
        return None
    gray: Values = np.clip(np.rint(share * 255), 0, 255).astype(np.int64)
    if not lossy and not ((gray > _BLACK) & (gray < _WHITE)).any():
        return None  # similar colours, but no soft edge
    return gray


def soft_values(values: Values, labels: Values) -> int:
    """Return the number of values that occur only along edges, or 0 if they may be objects.

    Args:
        values: [H,W].
        labels: the values of objects, sorted.
    """
    if len(labels) <= _FEW:
        return 0
    corner = values[:-1, :-1]
    solid = (corner == values[1:, :-1]) & (corner == values[:-1, 1:]) & (corner == values[1:, 1:])
    thin = len(labels) - int(np.count_nonzero(np.isin(labels, np.unique(corner[solid]))))
    return thin if thin > _FEW and 2 * thin > len(labels) else 0

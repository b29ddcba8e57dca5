"""Read the `segmentation` of COCO annotations: polygons and run lengths."""

from __future__ import annotations

from types import ModuleType
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from glesam_runtime.errors import InputError
from glesam_runtime.rle import Rle, decode_rle, runs_to_mask

_LONGEST_OUTLINE = 1 << 20
"""Outline in pixels up to which pycocotools draws a polygon as it is; it needs 80 bytes a pixel."""
_FARTHEST = 1e15
"""Largest coordinate that float64 still holds to a part of a pixel."""
_MARGIN = 16
"""Pixels around the image that a longer polygon keeps."""


class _Runs(msgspec.Struct):
    size: tuple[int, int]
    counts: list[int] | str


Segmentation: TypeAlias = list[list[float]] | _Runs | None

_decoder = msgspec.json.Decoder(Segmentation)


def decode_segmentation(raw: bytes, height: int, width: int, where: str) -> npt.NDArray[np.bool_]:
    """Draw the `segmentation` of an annotation as a mask, bool [height,width].

    A segmentation is a list of polygons, a list of run lengths, or a coded string of run lengths.
    pycocotools draws polygons, because its rule for pixels on an edge is part of the format.
    Polygons of fewer than three corners are empty.

    Args:
        raw: JSON of the segmentation.
        height: height of the image, pixels.
        width: width of the image, pixels.
        where: name of the annotation in error messages.

    Raises:
        InputError: the segmentation is not valid or has another size, or pycocotools is not
            installed.
    """
    parsed = parse_segmentation(raw, height, width, where)
    if isinstance(parsed, _Runs):
        return _from_runs(parsed, height, width)
    return _from_polygons(parsed or [], height, width)


def parse_segmentation(raw: bytes, height: int, width: int, where: str) -> Segmentation:
    """Return a segmentation after checking that it can be drawn.

    Raises:
        InputError: it is not valid or has another size.
    """
    try:
        parsed = _decoder.decode(raw) if raw else None
        if isinstance(parsed, _Runs):
            _check_runs(parsed, height, width)
        elif parsed and len(parsed) >= 3 and all(len(corner) == 2 for corner in parsed):
            raise InputError("corners in pairs; write a polygon as [x1, y1, x2, y2, ...]")
    except (msgspec.DecodeError, RecursionError, InputError) as error:
        raise InputError(f"{where}: its segmentation cannot be read ({error})") from error
    return parsed


def has_no_mask(parsed: Segmentation) -> bool:
    """Return whether an annotation has only a box, or polygons of fewer than three corners."""
    return not isinstance(parsed, _Runs) and not _polygons(parsed)


def _polygons(parsed: list[list[float]] | None) -> list[list[float]]:
    return [one for one in parsed or [] if len(one) >= 6 and len(one) % 2 == 0]


def covers_pixels(parsed: Segmentation, height: int, width: int) -> bool:
    """Return whether the mask of a segmentation has a pixel; faster than drawing it."""
    if not isinstance(parsed, _Runs):
        coded = _coded_polygons(parsed or [], height, width)
        return coded is not None and int(_pycocotools().area(coded)) > 0
    if isinstance(parsed.counts, str):
        return bool(_from_runs(parsed, height, width).any())
    return sum(parsed.counts[1::2]) > 0


def _check_runs(runs: _Runs, height: int, width: int) -> None:
    if runs.size != (height, width):
        raise InputError(f"size {list(runs.size)}, but the image has {[height, width]}")
    if isinstance(runs.counts, str):
        decode_rle(Rle(size=[height, width], counts=runs.counts))
    elif min(runs.counts, default=0) < 0 or sum(runs.counts) != height * width:
        raise InputError(f"its runs do not fill {height} x {width} pixels")


def _from_runs(runs: _Runs, height: int, width: int) -> npt.NDArray[np.bool_]:
    if isinstance(runs.counts, str):
        return decode_rle(Rle(size=[height, width], counts=runs.counts))
    return runs_to_mask(runs.counts, height, width)


def _from_polygons(polygons: list[list[float]], height: int, width: int) -> npt.NDArray[np.bool_]:
    coded = _coded_polygons(polygons, height, width)
    if coded is None:
        return np.zeros((height, width), np.bool_)
    drawn: npt.NDArray[np.bool_] = _pycocotools().decode(coded).astype(np.bool_)
    return drawn


def _coded_polygons(polygons: list[list[float]], height: int, width: int) -> Any:
    """Return the polygons together as run lengths of pycocotools, or None without any."""
    corners = _polygons(polygons)
    if not corners:
        return None
    mask = _pycocotools()
    clipped = [_near(np.reshape(p, (-1, 2)), height, width) for p in corners]
    near = [polygon.ravel().tolist() for polygon in clipped if len(polygon) >= 3]
    return mask.merge(mask.frPyObjects(near, height, width)) if near else None


def _pycocotools() -> ModuleType:
    """Return pycocotools.mask.

    Raises:
        InputError: it is not installed.
    """
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise InputError(
            "pycocotools is not installed, and COCO polygons need it: "
            "pip install 'glesam-deploy[training]'"
        ) from error
    module: ModuleType = mask
    return module


def _near(corners: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.float64]:
    """Return a polygon unchanged, or its part near the image if its outline is very long.

    The C code of pycocotools draws any part outside correctly, but walks along the whole outline
    in fifths of a pixel, so a corner far outside would use up memory. The border of the part that
    is left is beside the image, so the pixels stay those of the whole polygon.
    """
    steps = np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1)
    if steps.sum() + np.abs(corners).max() <= _LONGEST_OUTLINE:
        return corners
    corners = np.clip(corners, -_FARTHEST, _FARTHEST)
    for axis, size in ((0, width), (1, height)):
        corners = _cut(corners, axis, -_MARGIN, 1)
        corners = _cut(corners, axis, size + _MARGIN, -1)
    return corners


def _cut(
    corners: npt.NDArray[np.float64], axis: int, bound: float, sign: int
) -> npt.NDArray[np.float64]:
    """Cut a polygon [N,2] at a line across an axis, and keep one side (Sutherland and Hodgman).

    Args:
        corners: the polygon; it may be empty.
        axis: 0 for a vertical line (x), 1 for a horizontal one (y).
        bound: position of the line on the axis.
        sign: 1 keeps what is above the bound, -1 what is below it.
    """
    inside = sign * (corners[:, axis] - bound) >= 0
    before, before_inside = np.roll(corners, 1, axis=0), np.roll(inside, 1)
    crossing = inside != before_inside
    span = np.where(crossing, corners[:, axis] - before[:, axis], 1)
    share = (bound - before[:, axis]) / span
    met = before + share[:, None] * (corners - before)
    met[:, axis] = bound
    # Each corner that is kept comes after the point where its edge crosses the line, if it does.
    both = np.stack([met, corners], axis=1).reshape(-1, 2)
    kept: npt.NDArray[np.float64] = both[np.stack([crossing, inside], axis=1).ravel()]
    return kept

"""COCO's three ways to say which pixels are an object's: polygons, runs, and coded runs."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from glesam_runtime.errors import InputError
from glesam_runtime.rle import Rle, decode_rle, runs_to_mask


class _Runs(msgspec.Struct):
    size: tuple[int, int]
    counts: list[int] | str


_decoder = msgspec.json.Decoder(list[list[float]] | _Runs)


def decode_segmentation(raw: bytes, height: int, width: int, where: str) -> npt.NDArray[np.bool_]:
    """Draw an annotation's `segmentation`: bool [height,width].

    Polygons are drawn by pycocotools, whose rule of which pixels an edge belongs to is part of the
    format. Those of fewer than three corners cover nothing.

    Args:
        raw: its JSON.
        height: the image's, pixels; likewise `width`.
        width: pixels.
        where: names it in errors.

    Raises:
        InputError: not a segmentation, runs of another size, or pycocotools is not installed.
    """
    try:
        segmentation = _decoder.decode(raw)
        if isinstance(segmentation, _Runs):
            return _from_runs(segmentation, height, width)
    except (msgspec.DecodeError, RecursionError, InputError) as error:
        raise InputError(f"{where}: its segmentation cannot be read ({error})") from error
    return _from_polygons(segmentation, height, width)


def _from_runs(runs: _Runs, height: int, width: int) -> npt.NDArray[np.bool_]:
    if runs.size != (height, width):
        raise InputError(f"size {list(runs.size)}, but the image has {[height, width]}")
    if isinstance(runs.counts, str):
        return decode_rle(Rle(size=[height, width], counts=runs.counts))
    counts = runs.counts
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise InputError(f"its runs do not fill {height} x {width} pixels")
    return runs_to_mask(counts, height, width)


def _from_polygons(polygons: list[list[float]], height: int, width: int) -> npt.NDArray[np.bool_]:
    corners = [polygon for polygon in polygons if len(polygon) >= 6 and len(polygon) % 2 == 0]
    if not corners:
        return np.zeros((height, width), np.bool_)
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise InputError(
            "pycocotools, which draws COCO's polygons, is not installed: "
            "pip install 'glesam-deploy[training]'"
        ) from error
    # Its C code walks along every edge, so a corner far outside would take memory without end.
    limits = np.asarray([width, height], np.float64)
    inside = [np.clip(np.reshape(p, (-1, 2)), 0, limits).ravel().tolist() for p in corners]
    merged = mask.merge(mask.frPyObjects(inside, height, width))
    drawn: npt.NDArray[np.bool_] = mask.decode(merged).astype(np.bool_)
    return drawn

"""Turn the decoder's low-resolution logits into masks of the original image.

SAM upscales in two bilinear steps and crops the padding between them; SAM 2 upscales in one. Each
step is linear and separable, so all steps of an axis are one matrix: rows @ logits @ columns. The
product is computed in blocks and strips, so that `binarize` never holds the float logits of a whole
image or the matrix of a very long axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime.rle import join_spans, mask_spans, unite_spans

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.image import Geometry
    from glesam_runtime.manifest import Postprocessing
    from glesam_runtime.rle import Spans

_STRIP_PIXELS = 1 << 22
"""Number of logits in a strip: 16 MiB of float32."""
_BLOCK = 1 << 15
"""Number of pixels of an axis whose matrix is held at once: at most 32 MiB of float32."""
_PART = 1 << 12
"""Number of pixels of an axis for which a factor of its matrix is held: 32 MiB of float64."""


@dataclass(frozen=True)
class Masks:
    """Binary masks of one image and their stability scores."""

    masks: NDArray[np.bool_]
    """bool [..., H, W]."""
    stability: NDArray[np.float64]
    """float64 [...]: area above threshold + offset, divided by area above threshold - offset; 0 if
    the latter is 0."""


def choose(
    low_res: NDArray[np.float32], iou: NDArray[np.float32], multimask: bool, rules: Postprocessing
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Select one or three of the decoder's four masks.

    Args:
        low_res: logits [B, 4, S/4, S/4].
        iou: predicted IoU [B, 4].
        multimask: True returns all masks but the first; False returns the first, or the best of
            the others where the first is less stable than `rules.stability` requires.
        rules: the postprocessing rules of the manifest.

    Returns:
        Logits [B, C, S/4, S/4] and predicted IoU [B, C]; C is 3 with `multimask`, else 1.
    """
    if multimask:
        return low_res[:, 1:], iou[:, 1:]
    if rules.stability is None:
        return low_res[:, :1], iou[:, :1]
    first, offset = low_res[:, 0], rules.stability.offset
    inner = np.count_nonzero(first > offset, axis=(1, 2)).astype(np.float32)
    outer = np.count_nonzero(first > -offset, axis=(1, 2)).astype(np.float32)
    steadiness = np.where(outer > 0, inner / np.maximum(outer, 1), np.float32(1))
    stable = steadiness >= np.float32(rules.stability.threshold)
    chosen = np.where(stable, 0, 1 + np.argmax(iou[:, 1:], axis=1))
    rows = np.arange(len(chosen))
    return low_res[rows, chosen][:, None], iou[rows, chosen][:, None]


def for_mask_input(low_res: NDArray[np.float32], rules: Postprocessing) -> NDArray[np.float32]:
    """Return logits for the mask prompt of a later call, clipped if the rules have a limit."""
    limit = rules.low_res_limit
    return low_res if limit is None else np.clip(low_res, -limit, limit)


def upscale(
    low_res: NDArray[np.float32], geometry: Geometry, rules: Postprocessing
) -> NDArray[np.float32]:
    """Upscale logits to the size of the original image: [..., S/4, S/4] -> [..., H, W].

    A mask of 20,000 x 20,000 pixels takes 1.6 GB; `binarize` does not need that memory.
    """
    height, width = geometry.original
    logits = np.empty((*low_res.shape[:-2], height, width), np.float32)
    flat = logits.reshape(-1, height, width)
    for index, place, strip in _strips(low_res, geometry, rules):
        flat[index][place] = strip
    return logits


def binarize(
    low_res: NDArray[np.float32],
    geometry: Geometry,
    rules: Postprocessing,
    stability_offset: float | None = None,
) -> Masks:
    """Compute masks and stability at the image's size: [..., S/4, S/4] -> [..., H, W].

    Args:
        low_res: float32 logits.
        geometry: size and position of the image.
        rules: the postprocessing rules of the manifest.
        stability_offset: offset of the stability score in logits; None is that of the rules.
    """
    height, width = geometry.original
    masks = np.zeros((*low_res.shape[:-2], height, width), np.bool_)
    flat = masks.reshape(-1, height, width)
    areas = np.zeros((len(flat), 2), np.int64)
    threshold = rules.mask_threshold
    offset = rules.stability_offset if stability_offset is None else stability_offset
    for index, place, strip in _strips(low_res, geometry, rules, threshold - offset):
        np.greater(strip, threshold, out=flat[index][place])
        areas[index, 0] += np.count_nonzero(strip > threshold + offset)
        areas[index, 1] += np.count_nonzero(strip > threshold - offset)
    stability = areas[:, 0] / np.maximum(areas[:, 1], 1)
    return Masks(masks, stability.reshape(low_res.shape[:-2]))


def binarize_to_runs(
    low_res: NDArray[np.float32],
    geometry: Geometry,
    rules: Postprocessing,
    frame: tuple[int, int],
    corner: tuple[int, int],
    stability_offset: float | None = None,
) -> tuple[NDArray[np.int64], float]:
    """Compute the run lengths and the stability of one mask, without making the whole mask.

    Args:
        low_res: float32 logits [S/4, S/4].
        geometry: size and position of the window in which the mask was found.
        rules: the postprocessing rules of the manifest.
        frame: (H, W) of the picture in pixels.
        corner: (top, left) of the window in the picture.
        stability_offset: as in `binarize`.
    """
    threshold = rules.mask_threshold
    offset = rules.stability_offset if stability_offset is None else stability_offset
    spans: list[Spans] = []
    inner = outer = 0
    for _, (rows, columns), strip in _strips(low_res[None], geometry, rules, threshold - offset):
        inner += int(np.count_nonzero(strip > threshold + offset))
        outer += int(np.count_nonzero(strip > threshold - offset))
        place = rows.start + corner[0], columns.start + corner[1]
        spans.append(mask_spans(strip > threshold, frame[0], place))
    pixels = frame[0] * frame[1]
    runs = join_spans(unite_spans(spans), pixels) if spans else np.asarray([pixels])
    return runs, inner / max(outer, 1)


def mask_to_xywh(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the tight box of a mask [H, W]: left, top, width, height; zeros if it is empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if columns.size == 0:
        return 0, 0, 0, 0
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1


def _strips(
    low_res: NDArray[np.float32],
    geometry: Geometry,
    rules: Postprocessing,
    above: float | None = None,
) -> Iterator[tuple[int, tuple[slice, slice], NDArray[np.float32]]]:
    """Yield (mask index, rows and columns, logits there) until every mask is covered.

    With `above`, rows and columns where no logit can exceed it are skipped: most masks are small.
    """
    (height, width), (resized_height, resized_width) = geometry.original, geometry.resized
    side = low_res.shape[-1]
    direct = rules.upscale == "bilinear_direct"
    between_down = None if direct else (geometry.image_size, resized_height)
    between_across = None if direct else (geometry.image_size, resized_width)
    for left in range(0, width, _BLOCK):
        columns = _axis(side, between_across, width, left)
        for top in range(0, height, _BLOCK):
            rows = _axis(side, between_down, height, top)
            for index, mask in enumerate(low_res.reshape(-1, side, side)):
                for (down, across), strip in _strips_of_block(mask, rows, columns, above):
                    yield index, (_shifted(down, top), _shifted(across, left)), strip


def _strips_of_block(
    mask: NDArray[np.float32],
    rows: NDArray[np.float32],
    columns: NDArray[np.float32],
    above: float | None,
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.float32]]]:
    """Yield (rows and columns in the block, logits there) of one mask [S/4, S/4].

    Args:
        mask: the low-resolution logits.
        rows: the matrix [height of the block, S/4].
        columns: the matrix [width of the block, S/4].
        above: as for `_strips`.
    """
    down, across = slice(0, len(rows)), slice(0, len(columns))
    if above is not None:  # a mean of logits exceeds it only if one of them does
        high: NDArray[np.bool_] = mask > above
        down = _reach(rows, np.any(high, axis=1))
        across = _reach(columns, np.any(high, axis=0))
    step = max(1, _STRIP_PIXELS // len(columns))
    # First the smaller product [S/4, S/4] @ [S/4, W], then strips of rows.
    wide = mask @ columns[across].T
    for top in range(down.start, down.stop, step):
        place = slice(top, min(top + step, down.stop))
        yield (place, across), rows[place] @ wide


def _shifted(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def _reach(axis: NDArray[np.float32], sources: NDArray[np.bool_]) -> slice:
    """Return the range of an axis's pixels that at least one of the sources contributes to."""
    reached = np.flatnonzero(axis[:, sources].any(axis=1))
    return slice(int(reached[0]), int(reached[-1]) + 1) if reached.size else slice(0, 0)


@lru_cache(maxsize=4)  # two axes each of two images
def _axis(
    side: int, between: tuple[int, int] | None, original: int, start: int
) -> NDArray[np.float32]:
    """Return all bilinear steps of a block of an axis, with the crop, as one matrix [block, side].

    Args:
        side: the number of logits on the axis.
        between: the size after the first of two steps, and what the crop leaves of it; None for a
            single step.
        original: the size of the image.
        start: the first pixel of the block, which has up to `_BLOCK` pixels.
    """
    stop = min(start + _BLOCK, original)
    if between is None:
        matrix = _bilinear(side, original, start, stop).astype(np.float32)
    else:
        size, resized = between
        up = _bilinear(side, size, 0, resized)
        matrix = np.empty((stop - start, side), np.float32)
        # In parts, because the factor has up to 1024 float64 per pixel.
        for begin in range(start, stop, _PART):
            end = min(begin + _PART, stop)
            matrix[begin - start : end - start] = _bilinear(resized, original, begin, end) @ up
    matrix.flags.writeable = False
    return matrix


def _bilinear(size_in: int, size_out: int, start: int, stop: int) -> NDArray[np.float64]:
    """Return the rows from `start` to `stop` of the matrix [out, in] of bilinear resizing.

    Pixel centres are at half pixels, and positions beyond the edges are clamped.
    """
    centre = np.maximum((np.arange(start, stop) + 0.5) * (size_in / size_out) - 0.5, 0.0)
    left = np.minimum(centre.astype(np.int64), size_in - 1)
    right = np.minimum(left + 1, size_in - 1)
    weight = centre - left
    matrix = np.zeros((stop - start, size_in))
    row = np.arange(stop - start)
    np.add.at(matrix, (row, left), 1.0 - weight)
    np.add.at(matrix, (row, right), weight)
    return matrix

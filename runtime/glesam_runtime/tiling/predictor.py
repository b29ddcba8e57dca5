"""Segment pictures of any size with a predictor, in tiles that overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime import masks
from glesam_runtime.errors import InputError
from glesam_runtime.everything.crops import Box, Crop, near_crop_edge
from glesam_runtime.everything.generator import MaskRecord, describe
from glesam_runtime.everything.parameters import Parameters, thresholds
from glesam_runtime.everything.search import Found, without_duplicates
from glesam_runtime.prompts import PromptBatch, as_batch, group_alike, split
from glesam_runtime.rle import run_box
from glesam_runtime.tiling.joining import AGREEMENT, agreement
from glesam_runtime.tiling.search import find_in_tiles
from glesam_runtime.tiling.sides import check_tiles
from glesam_runtime.tiling.tiles import Grid
from glesam_runtime.tiling.window_files import open_windows
from glesam_runtime.tiling.windows import Windows, frame_of, read_reduced

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from glesam_runtime.predictor import GleSamPredictor


@dataclass(frozen=True)
class _Asked:
    """A prompt that has no answer yet."""

    index: int
    prompt: PromptBatch
    """One prompt, in pixels of the picture."""
    extent: tuple[float, float, float, float]
    """The bounding box of its points and its box."""
    side: int
    """The least side of the next window, if this one cuts the mask off."""


class TiledPredictor:
    """A predictor for pictures that are larger than the encoder's square.

    The picture is never in memory as a whole, if its file can be read in windows. Masks are records
    with COCO RLE, because a mask of a large picture takes as many bytes as the picture has pixels.

    Args:
        predictor: the predictor to use. Its image is replaced and then reset.
        tile: side of a tile in pixels. The encoder sees a tile scaled to its own square.
        overlap: pixels that neighbouring tiles share at least.

    Raises:
        InputError: the tile is too small, or the overlap is more than half of it.
    """

    def __init__(self, predictor: GleSamPredictor, tile: int = 1024, overlap: int = 128) -> None:
        check_tiles(tile, overlap)
        self.predictor = predictor
        self._tile, self._overlap = tile, overlap
        self._windows: Windows | None = None

    def set_image(
        self,
        image: str | os.PathLike[str] | NDArray[np.uint8] | Windows,
        depth: int | str = "auto",
    ) -> None:
        """Open a picture. Nothing is encoded yet.

        Args:
            image: a file, pixels (uint8 [H, W, 3], RGB, also a `numpy.memmap`), or any object with
                `height`, `width`, `note`, `read` and `close` as `tiling.windows.Windows`.
            depth: bits that the samples of a 16-bit file use, as in `read_image`.

        Raises:
            InputError: the picture cannot be read, or it is too large to be read whole.
        """
        is_opened = hasattr(image, "read") and hasattr(image, "note")
        self.set_windows(image if is_opened else open_windows(image, depth))  # type: ignore[arg-type]

    def set_windows(self, windows: Windows) -> None:
        """Set an opened picture."""
        grid = Grid(windows.height, windows.width, self._tile, self._overlap)
        self._windows, self._grid = windows, grid

    @property
    def original_size(self) -> tuple[int, int] | None:
        """Return (H, W) of the picture in pixels, or None if no picture is set."""
        return (self._windows.height, self._windows.width) if self._windows else None

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        multimask_output: bool = False,
    ) -> list[list[MaskRecord]]:
        """Return the masks of B prompts: for each prompt one record, or three, the best first.

        A prompt is looked at in the tile whose borders are farthest from it, or in a window of its
        own if it lies across a seam or is larger than a tile. If the best mask reaches a border of
        its window that is not a border of the picture, the window is moved to the mask, and then
        doubled until the mask fits; a window larger than a tile is reduced before it is encoded.

        Args:
            point_coords: [N, 2] or [B, N, 2], (x, y) in pixels of the picture.
            point_labels: [N] or [B, N], 1 for the object, 0 for the background.
            box: [4] or [B, 4], x0, y0, x1, y1 in pixels of the picture.
            multimask_output: True returns three masks per prompt.

        Returns:
            For each prompt its records, with `segmentation` as COCO RLE. `crop_box` is the window.

        Raises:
            InputError: no picture is set, or a prompt cannot be used.
        """
        windows = self._opened()
        _, prompts = as_batch(frame_of(windows), point_coords, point_labels, box)
        found = self.find(list(split(prompts, 1)), multimask_output)
        size = windows.height, windows.width
        return [[describe(one, *size, "coco_rle") for one in each] for each in found]

    def generate(self, parameters: Parameters | None = None) -> list[MaskRecord]:
        """Return the masks of everything in the picture, joined across the seams of tiles.

        Args:
            parameters: how densely to search each tile and which masks to keep.
        """
        windows = self._opened()
        found = self.find_everything(parameters or Parameters())
        size = windows.height, windows.width
        return [describe(one, *size, "coco_rle") for one in found]

    def find_everything(
        self, parameters: Parameters, progress: Callable[[int, int], None] | None = None
    ) -> list[Found]:
        """Return what `generate` returns, as runs. `progress` is that of `find_in_tiles`.

        A mask that still ends at the border of its tiles, because the next tile did not find it,
        is looked for again as a prompt is, by the point that found it. The new mask takes its place
        if both agree where the tiles lie; otherwise the mask is dropped.
        """
        windows, grid = self._opened(), self._grid
        with self.predictor.reserved():
            found = find_in_tiles(self.predictor, windows, grid, parameters, progress)
            whole = Crop((0, 0, grid.width, grid.height), 0)
            cut = [one for one in found if near_crop_edge(_ends(one), one.crop, whole)]
            if not cut:
                return found
            prompts = [
                PromptBatch(np.asarray([[one.point]]), np.ones((1, 1), np.float32), None, None)
                for one in cut
            ]
            keep = thresholds(self.predictor.bundle.manifest, parameters)
            again = [
                replace(new, point=old.point)
                for old, (new,) in zip(cut, self.find(prompts), strict=True)
                if new.predicted_iou > (keep.pred_iou_thresh or -np.inf)
                and new.stability >= (keep.stability_score_thresh or 0)
                and agreement(old, new, grid.height) >= AGREEMENT
            ]
        dropped = set(map(id, cut))
        every = [one for one in found if id(one) not in dropped] + again
        scores = [one.predicted_iou for one in every]
        return without_duplicates(every, scores, parameters.box_nms_thresh)

    def find(self, prompts: Sequence[PromptBatch], multimask: bool = False) -> list[list[Found]]:
        """Return the masks of prompts of one object each, best first, as runs.

        Windows that several prompts share are encoded once.
        """
        self._opened()
        found: list[list[Found]] = [[] for _ in prompts]
        waiting: dict[Box, list[_Asked]] = {}
        for index, prompt in enumerate(prompts):
            extent = _extent(prompt)
            asked = _Asked(index, prompt, extent, self._grid.tile)
            waiting.setdefault(self._grid.window_for(extent), []).append(asked)
        with self.predictor.reserved():
            try:
                while waiting:
                    window = min(waiting, key=lambda box: (box[1], box[0], box[3], box[2]))
                    for asked, masks_ in self._look(window, waiting.pop(window), multimask):
                        following = self._next_window(window, asked, masks_[0])
                        if following is None:
                            found[asked.index] = masks_
                            continue
                        again = replace(asked, side=2 * asked.side)
                        waiting.setdefault(following, []).append(again)
            finally:
                self.predictor.reset_image()
        return found

    def _opened(self) -> Windows:
        if self._windows is None:
            raise InputError("no picture is set; call set_image first")
        return self._windows

    def _look(
        self, window: Box, asked: Sequence[_Asked], multimask: bool
    ) -> list[tuple[_Asked, list[Found]]]:
        """Encode a window and decode the prompts in it."""
        x0, y0, x1, y1 = window
        factor = -(-max(x1 - x0, y1 - y0) // self._grid.tile)
        self.predictor.set_image(read_reduced(self._opened(), window, factor))
        inside = [
            PromptBatch(
                (each.prompt.points - [x0, y0]) / factor,
                each.prompt.labels,
                None
                if each.prompt.boxes is None
                else (each.prompt.boxes - [x0, y0, x0, y0]) / factor,
                None,
            )
            for each in asked
        ]
        results: list[tuple[_Asked, list[Found]]] = []
        for members, batch in group_alike(inside):
            decoded = self.predictor.decode(batch, multimask)
            for member, low_res, scores in zip(members, *decoded, strict=True):
                order = np.argsort(-scores, kind="stable")
                point = asked[member].extent[:2]
                found = [
                    self._found(low_res[index], float(scores[index]), window, point)
                    for index in order
                ]
                results.append((asked[member], found))
        return results

    def _found(
        self, low_res: NDArray[np.float32], score: float, window: Box, point: tuple[float, float]
    ) -> Found:
        """Return a mask at the resolution of the picture."""
        x0, y0, x1, y1 = window
        geometry = replace(self.predictor.geometry, original=(y1 - y0, x1 - x0))
        size = self._grid.height, self._grid.width
        rules = self.predictor.bundle.manifest.postprocessing
        runs, stability = masks.binarize_to_runs(low_res, geometry, rules, size, (y0, x0))
        box = run_box(runs, size[0])
        return Found(runs, box, score, stability, point, Crop(window, 0))

    def _next_window(self, window: Box, asked: _Asked, found: Found) -> Box | None:
        """Return the window to look in next, or None if this one shows the whole mask."""
        grid = self._grid
        x0, y0, x1, y1 = found.box[0], found.box[1], found.box[2] + 1, found.box[3] + 1
        ends = (x0, y0, grid.width - x1, grid.height - y1)
        edges = (window[0], window[1], grid.width - window[2], grid.height - window[3])
        # A pixel of the reduced picture, so that a mask that ends at the border counts.
        near = max(window[2] - window[0], window[3] - window[1]) // grid.tile + 1
        if x1 - x0 <= 1 or not any(
            edge > 0 and end - edge <= near for end, edge in zip(ends, edges, strict=True)
        ):
            return None
        extent = (
            *(min(x0, asked.extent[0]), min(y0, asked.extent[1])),
            *(max(x1, asked.extent[2]), max(y1, asked.extent[3])),
        )
        side = max(asked.side, window[2] - window[0], window[3] - window[1])
        following = grid.window_around(extent, side)
        if following == window:
            following = grid.window_around(extent, 2 * side)
        return None if following == window else following


def _ends(found: Found) -> Box:
    """Return the box of a mask with ends behind it, as those of crops are."""
    return found.box[0], found.box[1], found.box[2] + 1, found.box[3] + 1


def _extent(prompt: PromptBatch) -> tuple[float, float, float, float]:
    """Return the bounding box of the points and the box of one prompt."""
    corners = [prompt.points[0][prompt.labels[0] >= 0]]
    if prompt.boxes is not None:
        corners.append(prompt.boxes[0].reshape(2, 2))
    every = np.concatenate(corners)
    if not every.size:
        raise InputError("no prompt: give a point of label 1 or 0, or a box")
    (x0, y0), (x1, y1) = every.min(axis=0).tolist(), every.max(axis=0).tolist()
    return x0, y0, x1, y1

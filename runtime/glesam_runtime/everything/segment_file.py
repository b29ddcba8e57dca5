"""Segment everything in one image file: write an instance map and an overlay."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec import UNSET, convert

from glesam_runtime.enhancing import Branch
from glesam_runtime.errors import InputError
from glesam_runtime.everything.instance_map import draw_everything, save_instances
from glesam_runtime.everything.search import Found, find_masks
from glesam_runtime.output_files import OutputFiles, refuse_inputs, save_mask, save_overlay
from glesam_runtime.results import ImageResult, Mask, Rle, estimate_field
from glesam_runtime.rle import encode_runs, run_area, runs_to_mask
from glesam_runtime.staging import staged_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.everything.parameters import Parameters
    from glesam_runtime.predictor import GleSamPredictor

_MAX_MASKS = np.iinfo(np.uint16).max
"""Number of masks that an instance map of 16 bits can hold."""


@dataclass(frozen=True)
class Prepared:
    """An image that has been read."""

    files: OutputFiles
    image: NDArray[np.uint8]
    """[H, W, 3]."""
    note: str | None
    """What may be wrong with the image."""
    seconds: dict[str, float]


@dataclass(frozen=True)
class Inferred:
    """The masks found in an image."""

    prepared: Prepared
    found: list[Found]
    branch: Branch
    """Of the whole image. Each crop is decided for by itself."""
    seconds: dict[str, float]


@dataclass(frozen=True)
class EverythingSegmentation:
    """The work of glesam-run --everything. For each image it writes all outputs or none."""

    parameters: Parameters
    """How densely to search and which masks to keep."""
    mask_files: bool
    """Whether to write a file for each mask in addition to the instance map."""
    inputs: frozenset[Path]
    """Resolved paths of all input images, which no output may overwrite."""
    depth: int | str = "auto"
    """Bits that the samples of 16-bit images use."""
    write: bool = True
    """Whether to write files."""
    progress: Callable[[str, int, int], None] | None = None
    """Called with the image, and how many points of the grids are done of how many."""

    def pixels(self, files: OutputFiles) -> int:
        """Return the number of pixels of the image file."""
        return files.source.pixels()

    def prepare(self, files: OutputFiles) -> Prepared:
        """Read the image.

        Raises:
            InputError: the image cannot be read, or an output would overwrite an input image.
        """
        start = time.perf_counter()
        image, note = files.source.read(self.depth)
        seconds = {"read": time.perf_counter() - start}
        if self.write:
            outputs = (files.instances_path, files.colours_path, files.overlay_path)
            refuse_inputs(files, outputs, self.inputs)
        return Prepared(files, image, note, seconds)

    def infer(self, predictor: GleSamPredictor, prepared: Prepared) -> Inferred:
        """Find the masks.

        Raises:
            InputError: the image is too small for the crops, or it has more masks than an instance
                map holds.
        """
        image = prepared.files.image
        start = time.perf_counter()
        told = self.progress
        progress = None if told is None else lambda *counts: told(str(image), *counts)
        branches: list[Branch] = []
        try:
            found = find_masks(
                predictor,
                prepared.image,
                self.parameters,
                progress,
                lambda: branches.append(predictor.branch),
            )
        except InputError as error:
            raise InputError(f"{image}: {error}") from error
        if len(found) > _MAX_MASKS:
            raise InputError(f"{image}: {len(found)} masks, but an instance map holds {_MAX_MASKS}")
        seconds = {**prepared.seconds, "search": time.perf_counter() - start}
        return Inferred(prepared, found, branches[0], seconds)

    def finish(self, inferred: Inferred, check: Callable[[], None]) -> ImageResult:
        """Write the files.

        Args:
            inferred: the result of `infer`.
            check: called before each mask is drawn; it may raise to stop the work.

        Returns:
            The image's entry in `--json`.

        Raises:
            InputError: a file cannot be written, or would overwrite an input image.
        """
        start = time.perf_counter()
        files, image = inferred.prepared.files, inferred.prepared.image
        found = inferred.found
        height, width = image.shape[:2]
        count = len(found) if self.write and self.mask_files else 0
        paths = [files.mask_path(index, count) for index in range(count)]
        refuse_inputs(files, paths, self.inputs)
        colours = False
        if self.write:
            files.stem.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as staged:  # all files are complete before the first gets its name
                for one, path in zip(found, paths, strict=False):
                    check()
                    mask = runs_to_mask(one.runs, height, width)
                    save_mask(mask, staged.enter_context(staged_file(path)))
                instances, overlay = draw_everything(image, found, check)
                colours = save_instances(
                    instances,
                    len(found),
                    lambda path: staged.enter_context(staged_file(path)),
                    files,
                )
                save_overlay(overlay, staged.enter_context(staged_file(files.overlay_path)))
        seconds = {**inferred.seconds, "masks_and_files": time.perf_counter() - start}
        return ImageResult(
            image=str(files.image),
            width=width,
            height=height,
            note=inferred.prepared.note or UNSET,
            enhanced=inferred.branch.enhanced,
            estimate=estimate_field(inferred.branch.estimate),
            masks=tuple(
                _record(one, index, paths, height, width) for index, one in enumerate(found)
            ),
            instances=str(files.instances_path) if self.write else UNSET,
            colours=str(files.colours_path) if colours else UNSET,
            overlay=str(files.overlay_path) if self.write else UNSET,
            seconds={step: round(value, 6) for step, value in seconds.items()},
        )


def _record(found: Found, index: int, paths: list[Path], height: int, width: int) -> Mask:
    x0, y0, x1, y1 = found.box
    return Mask(
        id=index + 1,
        points=(found.point,),
        box=(x0, y0, x1 + 1, y1 + 1),
        predicted_iou=round(found.predicted_iou, 6),
        stability_score=round(found.stability, 6),
        area=run_area(found.runs),
        crop=found.crop.box,
        rle=convert(encode_runs(found.runs, height, width), Rle),
        file=str(paths[index]) if paths else UNSET,
    )

"""Segment everything in one image file: write an instance map and an overlay."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from glesam_runtime.draw import colour_of, draw_mask
from glesam_runtime.errors import InputError
from glesam_runtime.everything.generator import describe
from glesam_runtime.everything.search import Found, find_masks
from glesam_runtime.image_file import pixels_of, read_image_with_note
from glesam_runtime.output_files import OutputFiles, refuse_inputs, save_mask, save_overlay
from glesam_runtime.printing import noted
from glesam_runtime.rle import run_area, runs_to_mask
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

    def pixels(self, files: OutputFiles) -> int:
        """Return the number of pixels of the image file."""
        return pixels_of(files.image)

    def prepare(self, files: OutputFiles) -> Prepared:
        """Read the image.

        Raises:
            InputError: the image cannot be read, or an output would overwrite an input image.
        """
        start = time.perf_counter()
        image, note = read_image_with_note(files.image, self.depth)
        seconds = {"read": time.perf_counter() - start}
        refuse_inputs(files, (files.instances_path, files.overlay_path), self.inputs)
        return Prepared(files, image, note, seconds)

    def infer(self, predictor: GleSamPredictor, prepared: Prepared) -> Inferred:
        """Find the masks.

        Raises:
            InputError: the image is too small for the crops, or it has more masks than an instance
                map holds.
        """
        image = prepared.files.image
        start = time.perf_counter()
        try:
            found = find_masks(predictor, prepared.image, self.parameters)
        except InputError as error:
            raise InputError(f"{image}: {error}") from error
        if len(found) > _MAX_MASKS:
            raise InputError(f"{image}: {len(found)} masks, but an instance map holds {_MAX_MASKS}")
        seconds = {**prepared.seconds, "search": time.perf_counter() - start}
        return Inferred(prepared, found, seconds)

    def finish(self, inferred: Inferred, check: Callable[[], None]) -> dict[str, Any]:
        """Write the files.

        Args:
            inferred: the result of `infer`.
            check: called before each mask is drawn; it may raise to stop the work.

        Returns:
            The image's entry in `--json`. `masks` are the generator's records with COCO RLE, and
            `id` is the mask's value in the instance map.

        Raises:
            InputError: a file cannot be written, or would overwrite an input image.
        """
        start = time.perf_counter()
        files, image = inferred.prepared.files, inferred.prepared.image
        found = inferred.found
        height, width = image.shape[:2]
        count = len(found) if self.mask_files else 0
        paths = [files.mask_path(index, count) for index in range(count)]
        refuse_inputs(files, paths, self.inputs)
        files.stem.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as staged:  # all files are complete before the first gets its name
            for one, path in zip(found, paths, strict=False):
                check()
                mask = runs_to_mask(one.runs, height, width)
                save_mask(mask, staged.enter_context(staged_file(path)))
            instances, overlay = draw_everything(image, found, check)
            place = staged.enter_context(staged_file(files.instances_path))
            Image.fromarray(instances).save(place, "PNG")
            save_overlay(overlay, staged.enter_context(staged_file(files.overlay_path)))
        seconds = {**inferred.seconds, "masks_and_files": time.perf_counter() - start}
        return {
            "image": str(files.image),
            "width": width,
            "height": height,
            **noted(inferred.prepared.note),
            "masks": list(_entries(found, paths, height, width)),
            "instances": str(files.instances_path),
            "overlay": str(files.overlay_path),
            "seconds": {step: round(value, 6) for step, value in seconds.items()},
        }


def draw_everything(
    image: NDArray[np.uint8], found: Sequence[Found], check: Callable[[], None]
) -> tuple[NDArray[np.uint16], Image.Image]:
    """Draw the instance map and the overlay; a small mask lies on top of a larger one.

    Args:
        image: uint8 [H, W, 3].
        found: the masks of the image.
        check: called before each mask; it may raise to stop the work.

    Returns:
        The instance map uint16 [H, W], 0 where there is no mask and i + 1 on mask i, and the RGB
        overlay with each mask in its own colour.
    """
    height, width = image.shape[:2]
    instances = np.zeros((height, width), np.uint16)
    canvas = Image.fromarray(image)
    areas = [run_area(one.runs) for one in found]
    for index in sorted(range(len(found)), key=lambda index: -areas[index]):
        check()
        mask = runs_to_mask(found[index].runs, height, width)
        instances[mask] = index + 1
        draw_mask(canvas, mask, colour_of(index))
    return instances, canvas


def _entries(
    found: Sequence[Found], paths: Sequence[Path], height: int, width: int
) -> Iterator[dict[str, Any]]:
    for index, one in enumerate(found):
        file = {"file": str(paths[index])} if paths else {}
        yield {"id": index + 1, **file, **describe(one, height, width, "coco_rle")}

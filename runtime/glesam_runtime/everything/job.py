"""One image file in; an instance map and an overlay of everything in it out."""

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
from glesam_runtime.image import pixels_of, read_image
from glesam_runtime.jobs import Job, refuse_inputs, save_mask, save_overlay
from glesam_runtime.runs import area_of, runs_to_mask
from glesam_runtime.staging import staged_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.everything.parameters import Parameters
    from glesam_runtime.predictor import GleSamPredictor

_MOST = np.iinfo(np.uint16).max
"""Masks an instance map can tell apart."""


@dataclass(frozen=True)
class Prepared:
    """An image that was read."""

    job: Job
    image: NDArray[np.uint8]
    """[H, W, 3]."""
    seconds: dict[str, float]


@dataclass(frozen=True)
class Inferred:
    """Everything in an image."""

    prepared: Prepared
    found: list[Found]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Everything:
    """The work of glesam-run --everything; of each image all outputs are written, or none."""

    parameters: Parameters
    """How densely to look and what to keep."""
    mask_files: bool
    """A file for each mask beside the instance map."""
    inputs: frozenset[Path]
    """Resolved paths of all input images, which no output may replace."""

    def pixels(self, job: Job) -> int:
        """Of the image file."""
        return pixels_of(job.image)

    def prepare(self, job: Job) -> Prepared:
        """Read the image.

        Raises:
            InputError: it cannot be, or it is what would be written.
        """
        start = time.perf_counter()
        image = read_image(job.image)
        seconds = {"read": time.perf_counter() - start}
        refuse_inputs(job, (job.instances_path, job.overlay_path), self.inputs)
        return Prepared(job, image, seconds)

    def infer(self, predictor: GleSamPredictor, prepared: Prepared) -> Inferred:
        """Search.

        Raises:
            InputError: an image too small for the crops, or more masks than an instance map holds.
        """
        image = prepared.job.image
        start = time.perf_counter()
        try:
            found = find_masks(predictor, prepared.image, self.parameters)
        except InputError as error:
            raise InputError(f"{image}: {error}") from error
        if len(found) > _MOST:
            raise InputError(f"{image}: {len(found)} masks, an instance map holds {_MOST}")
        seconds = {**prepared.seconds, "search": time.perf_counter() - start}
        return Inferred(prepared, found, seconds)

    def finish(self, inferred: Inferred, check: Callable[[], None]) -> dict[str, Any]:
        """Write the files.

        Args:
            inferred: from `infer`.
            check: called before each mask.

        Returns:
            What `--json` says of the image; `masks` are the generator's records with COCO RLE,
            and `id` is the mask's value in the instance map.

        Raises:
            InputError: a file cannot be written, or would replace an input image.
        """
        start = time.perf_counter()
        job, image, found = inferred.prepared.job, inferred.prepared.image, inferred.found
        height, width = image.shape[:2]
        count = len(found) if self.mask_files else 0
        paths = [job.mask_path(index, count) for index in range(count)]
        refuse_inputs(job, paths, self.inputs)
        job.output.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:  # every file is complete before the first gets its name
            for one, path in zip(found, paths, strict=False):
                check()
                mask = runs_to_mask(one.runs, height, width)
                save_mask(mask, files.enter_context(staged_file(path)))
            instances, overlay = picture(image, found, check)
            place = files.enter_context(staged_file(job.instances_path))
            Image.fromarray(instances).save(place, "PNG")
            save_overlay(overlay, files.enter_context(staged_file(job.overlay_path)))
        seconds = {**inferred.seconds, "masks_and_files": time.perf_counter() - start}
        return {
            "image": str(job.image),
            "width": width,
            "height": height,
            "masks": list(_entries(found, paths, height, width)),
            "instances": str(job.instances_path),
            "overlay": str(job.overlay_path),
            "seconds": {step: round(value, 6) for step, value in seconds.items()},
        }


def picture(
    image: NDArray[np.uint8], found: Sequence[Found], check: Callable[[], None]
) -> tuple[NDArray[np.uint16], Image.Image]:
    """The instance map and the overlay: a small mask lies on top of a larger one.

    Args:
        image: uint8 [H, W, 3].
        found: masks of it.
        check: called before each mask.

    Returns:
        uint16 [H, W], 0 where there is no mask and i + 1 on mask i; and an RGB image with each
        mask in its own colour.
    """
    height, width = image.shape[:2]
    instances = np.zeros((height, width), np.uint16)
    canvas = Image.fromarray(image)
    areas = [area_of(one.runs) for one in found]
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

"""One image file in; an instance map and an overlay of everything in it out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from glesam_runtime.draw import colour_of, draw_mask
from glesam_runtime.errors import InputError
from glesam_runtime.everything.generator import describe
from glesam_runtime.everything.search import Found, find_masks
from glesam_runtime.image import read_image
from glesam_runtime.runs import area_of, runs_to_mask
from glesam_runtime.segment import Job, refuse_inputs, save_mask, save_overlay
from glesam_runtime.staging import staged_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.everything.parameters import Parameters
    from glesam_runtime.predictor import GleSamPredictor

_MOST = np.iinfo(np.uint16).max
"""Masks an instance map can tell apart."""


def run_everything(
    predictor: GleSamPredictor,
    job: Job,
    parameters: Parameters,
    *,
    mask_files: bool,
    inputs: frozenset[Path],
) -> dict[str, Any]:
    """Find everything in an image; write all of its outputs, or none.

    Args:
        predictor: with any image set or none.
        job: the image and its output names.
        parameters: how densely to look and what to keep.
        mask_files: a file for each mask beside the instance map.
        inputs: resolved paths of all input images, which no output may replace.

    Returns:
        What `--json` says of the image; `masks` are the generator's records with COCO RLE, and
        `id` is the mask's value in the instance map.

    Raises:
        InputError: the image or the output folder cannot be used, or more masks than an instance
            map holds.
    """
    start = time.perf_counter()
    image = read_image(job.image)
    seconds = {"read": time.perf_counter() - start}
    height, width = image.shape[:2]
    refuse_inputs(job, (job.instances_path, job.overlay_path), inputs)

    start = time.perf_counter()
    try:
        found = find_masks(predictor, image, parameters)
    except InputError as error:
        raise InputError(f"{job.image}: {error}") from error
    if len(found) > _MOST:
        raise InputError(f"{job.image}: {len(found)} masks, an instance map holds {_MOST}")
    seconds["search"] = time.perf_counter() - start

    start = time.perf_counter()
    paths = [job.mask_path(index, len(found)) for index in range(len(found))] if mask_files else []
    refuse_inputs(job, paths, inputs)
    job.output.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:  # every file is complete before the first gets its name
        for one, path in zip(found, paths, strict=False):
            save_mask(runs_to_mask(one.runs, height, width), files.enter_context(staged_file(path)))
        instances, overlay = picture(image, found)
        Image.fromarray(instances).save(files.enter_context(staged_file(job.instances_path)), "PNG")
        save_overlay(overlay, files.enter_context(staged_file(job.overlay_path)))
    seconds["masks_and_files"] = time.perf_counter() - start
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
    image: NDArray[np.uint8], found: Sequence[Found]
) -> tuple[NDArray[np.uint16], Image.Image]:
    """The instance map and the overlay: a small mask lies on top of a larger one.

    Args:
        image: uint8 [H, W, 3].
        found: masks of it.

    Returns:
        uint16 [H, W], 0 where there is no mask and i + 1 on mask i; and an RGB image with each
        mask in its own colour.
    """
    height, width = image.shape[:2]
    instances = np.zeros((height, width), np.uint16)
    canvas = Image.fromarray(image)
    areas = [area_of(one.runs) for one in found]
    for index in sorted(range(len(found)), key=lambda index: -areas[index]):
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

"""One image file in, its mask and overlay files out, and what there is to say about them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from glesam_runtime.draw import colour_of, draw_mask, draw_prompt
from glesam_runtime.errors import InputError
from glesam_runtime.image import geometry_of, read_image
from glesam_runtime.masks import mask_to_xywh
from glesam_runtime.prompt_requests import PromptRequest, check_request, group_alike
from glesam_runtime.rle import encode_rle
from glesam_runtime.staging import staged_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.predictor import GleSamPredictor


_FAST = 2
"""PNG compression of the overlay: a quarter of the default's time, a tenth more bytes."""


@dataclass(frozen=True)
class Job:
    """An image and the beginning of its outputs' names."""

    image: Path
    output: Path
    """Folder and stem; `_mask.png`, `_instances.png` and `_overlay.png` are added."""

    def mask_path(self, index: int, count: int) -> Path:
        """`<stem>_mask.png` for a single mask, else `<stem>_mask_0.png` and so on."""
        return self._with(f"_mask_{index}.png" if count > 1 else "_mask.png")

    @property
    def overlay_path(self) -> Path:
        """`<stem>_overlay.png`."""
        return self._with("_overlay.png")

    @property
    def instances_path(self) -> Path:
        """`<stem>_instances.png`."""
        return self._with("_instances.png")

    def _with(self, ending: str) -> Path:
        return self.output.with_name(self.output.name + ending)


def plan_jobs(images: Sequence[Path], folder: Path) -> list[Job]:
    """Give each image its output names; the second of a stem becomes `<stem>-2`, and so on."""
    taken: set[str] = set()
    jobs = []
    for image in images:
        stem, number = image.stem, 2
        while stem.lower() in taken:  # file systems may fold case
            stem, number = f"{image.stem}-{number}", number + 1
        taken.add(stem.lower())
        jobs.append(Job(image, folder / stem))
    return jobs


def refuse_inputs(job: Job, outputs: Iterable[Path], inputs: frozenset[Path]) -> None:
    """Outputs may not replace an input image; `inputs` are resolved.

    Raises:
        InputError: naming the first that would.
    """
    for path in outputs:
        if path.resolve() in inputs:
            raise InputError(f"{job.image}: {path} is an input image; choose another folder: -o")


def save_mask(mask: NDArray[np.bool_], path: Path) -> None:
    """Write a mask [H, W] as a PNG of 0 and 255."""
    Image.fromarray(mask.astype(np.uint8, order="C") * np.uint8(255)).save(path, "PNG")


def save_overlay(overlay: Image.Image, path: Path) -> None:
    """Write a picture to look at as a PNG."""
    overlay.save(path, "PNG", compress_level=_FAST)


def run_job(
    predictor: GleSamPredictor,
    job: Job,
    requests: Sequence[PromptRequest],
    *,
    multimask: bool,
    inputs: frozenset[Path],
) -> dict[str, Any]:
    """Segment an image; write all of its outputs, or none.

    Args:
        predictor: with any image set or none.
        job: the image and its output names.
        requests: a prompt an object.
        multimask: three masks a prompt; the overlay shows the one of highest predicted IoU.
        inputs: resolved paths of all input images, which no output may replace.

    Returns:
        What `--json` says of the image.

    Raises:
        InputError: the image, a prompt or the output folder cannot be used.
    """
    start = time.perf_counter()
    image = read_image(job.image)
    read = time.perf_counter() - start
    height, width = image.shape[:2]
    rules = predictor.bundle.manifest.preprocessing
    geometry = geometry_of(height, width, rules.image_size, rules.resize)
    try:
        batches = [check_request(request, geometry) for request in requests]
    except InputError as error:
        raise InputError(f"{job.image}: {error}") from error
    count = len(requests) * (3 if multimask else 1)
    paths = [job.mask_path(index, count) for index in range(count)]
    refuse_inputs(job, (*paths, job.overlay_path), inputs)

    predictor.set_image(image)
    side = geometry.image_size // 4
    per_prompt = count // len(requests)
    low_res = np.empty((len(requests), per_prompt, side, side), np.float32)
    scores = np.empty((len(requests), per_prompt), np.float32)
    decoder = 0.0
    for members, batch in group_alike(batches):
        low_res[members], scores[members] = predictor.decode(batch, multimask)
        decoder += predictor.timings["decoder"]
    seconds = {"read": read, **predictor.timings, "decoder": decoder}
    seconds.pop("load", None)

    start = time.perf_counter()
    canvas = Image.fromarray(image)
    entries = []
    job.output.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:  # every file is complete before the first gets its name
        for prompt in range(len(requests)):
            best = int(np.argmax(scores[prompt]))
            for index in range(per_prompt):
                # One mask at a time: those of a huge image do not fit in memory together.
                made = predictor.binarize(low_res[prompt, index])
                path = paths[prompt * per_prompt + index]
                save_mask(made.masks, files.enter_context(staged_file(path)))
                entries.append(
                    {
                        "prompt": prompt,
                        "file": str(path),
                        "predicted_iou": round(float(scores[prompt, index]), 6),
                        "stability_score": round(float(made.stability), 6),
                        **_describe(made.masks),
                    }
                )
                if index == best:
                    draw_mask(canvas, made.masks, colour_of(prompt))
        for prompt, request in enumerate(requests):
            draw_prompt(canvas, request, colour_of(prompt))
        save_overlay(canvas, files.enter_context(staged_file(job.overlay_path)))
    seconds["masks_and_files"] = time.perf_counter() - start
    return {
        "image": str(job.image),
        "width": width,
        "height": height,
        "masks": entries,
        "overlay": str(job.overlay_path),
        "seconds": {step: round(value, 6) for step, value in seconds.items()},
    }


def _describe(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Area in pixels, box as COCO has it, COCO RLE."""
    return {
        "area": int(np.count_nonzero(mask)),
        "box_xywh": list(mask_to_xywh(mask)),
        "rle": encode_rle(mask),
    }

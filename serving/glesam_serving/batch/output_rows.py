"""Turn the result of an image into rows of the output, and into files of masks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from glesam_runtime.output_files import save_mask
from glesam_runtime.prompt_requests import PromptRequest, from_entry
from glesam_runtime.results import ImageResult
from glesam_runtime.rle import decode_rle
from glesam_runtime.staging import staged_file
from glesam_serving.batch.job import Job
from glesam_serving.batch.rows import Row


def requests_of(row: Row, job: Job) -> list[PromptRequest]:
    """Return the prompts of a row, or those of the job if it has none."""
    raws: Iterable[msgspec.Raw] = row.prompts or (
        msgspec.Raw(msgspec.json.encode(prompt)) for prompt in job.prompts
    )
    return [from_entry(raw, f"prompt {index}") for index, raw in enumerate(raws)]


def mask_rows(job: Job, number: int, row: Row, result: ImageResult) -> list[dict[str, Any]]:
    """Return the rows of an image for `parts.MASK_SCHEMA`, one for each mask.

    Args:
        job: the job.
        number: the image's row in the job.
        row: the image and its prompts.
        result: what glesam-run says of the image.
    """
    requests = [] if job.everything is not None else requests_of(row, job)
    seconds = round(sum(result.seconds.values()), 6)
    rows = []
    for mask in result.masks:
        prompt = None if mask.prompt is msgspec.UNSET else int(mask.prompt)
        request = None if prompt is None else requests[prompt]
        points = [list(point) for point in mask.points or ()]
        if request is not None:
            clicks = zip(request.points, request.labels, strict=True)
            points = [[*point, label] for point, label in clicks]
        ids = row.annotations
        rows.append(
            {
                "row": number,
                "image": row.image,
                "image_id": row.image_id,
                "mask": mask.id - 1,
                "prompt": prompt,
                "annotation_id": ids[prompt] if ids and prompt is not None else None,
                "points": points or None,
                "prompt_box": list(request.box) if request and request.box else None,
                "predicted_iou": mask.predicted_iou,
                "stability_score": mask.stability_score,
                "area": mask.area,
                "box": list(mask.box),
                "height": result.height,
                "width": result.width,
                "counts": mask.rle.counts,
                "enhanced": result.enhanced,
                "estimate": None if result.estimate is msgspec.UNSET else result.estimate,
                "bundle": job.bundle,
                "seconds": seconds,
            }
        )
    return rows


def write_pngs(out: Path, number: int, result: ImageResult) -> None:
    """Write each mask to `png/<thousands>/<row>_<mask>.png`."""
    folder = out / "png" / f"{number // 1000:06}"
    folder.mkdir(parents=True, exist_ok=True)
    for mask in result.masks:
        rle = {"size": list(mask.rle.size), "counts": mask.rle.counts}
        with staged_file(folder / f"{number:09}_{mask.id - 1}.png") as path:
            save_mask(decode_rle(rle), path)  # type: ignore[arg-type]

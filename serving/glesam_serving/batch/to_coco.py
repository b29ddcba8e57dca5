"""Turn the output of a job into COCO's results: one entry a mask, as pycocotools loads them."""

from __future__ import annotations

from pathlib import Path

import msgspec
from pyarrow import parquet

from glesam_runtime.errors import InputError
from glesam_runtime.staging import staged_file
from glesam_serving.batch.job import read_job
from glesam_serving.batch.parts import MASKS, part_path, written_chunks

_COLUMNS = (
    *("row", "image", "image_id", "annotation_id", "predicted_iou", "area", "box"),
    *("height", "width", "counts"),
)


def write_coco(out: Path, result: Path, category: int) -> int:
    """Write the masks of a finished job as a COCO results file, and return their number.

    An image without a COCO id gets its row in the job, from 1 on, as `image_id`. Parts are read one
    after another, so memory does not grow with their number.

    Raises:
        InputError: the folder holds no job, or one that is not finished.
    """
    opened = read_job(out)
    written = list(written_chunks(out, MASKS))
    missing = len(opened.plan) - len(written)
    if missing:
        raise InputError(
            f"{out}: {missing} of {len(opened.plan)} parts are missing; finish the job with its "
            "command first"
        )
    count = 0
    with staged_file(result) as staged, staged.open("wb") as file:
        file.write(b"[")
        for chunk in written:
            table = parquet.read_table(part_path(out, MASKS, chunk), columns=list(_COLUMNS))
            for mask in table.to_pylist():
                file.write(b",\n" if count else b"\n")
                file.write(msgspec.json.encode(_entry(mask, category)))
                count += 1
        file.write(b"\n]\n")
    return count


def _entry(mask: dict, category: int) -> dict:  # type: ignore[type-arg]
    x0, y0, x1, y1 = mask["box"]
    image_id = mask["image_id"]
    entry = {
        "image_id": mask["row"] + 1 if image_id is None else image_id,
        "category_id": category,
        "segmentation": {"size": [mask["height"], mask["width"]], "counts": mask["counts"]},
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": mask["area"],
        "score": mask["predicted_iou"],
    }
    if mask["annotation_id"] is not None:
        entry["annotation_id"] = mask["annotation_id"]
    if image_id is None:
        entry["file_name"] = mask["image"]
    return entry

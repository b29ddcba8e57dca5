"""Open datasets: images with the masks of the objects in them.

data = open_dataset("ECSSD")                            # folders of images and masks
data = open_dataset("dis5k/DIS-TE1:DIS5K")              # a published dataset, by its name
data = open_dataset("annotations/instances_val2017.json")   # COCO, LVIS
data = open_dataset("scenes:200@1000")                  # procedural, nothing to download
sample = data[0]                                        # .name, .image [H,W,3], .masks [K,H,W]
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from glesam_evaluation.datasets.coco import CocoDataset
from glesam_evaluation.datasets.folder import FolderDataset
from glesam_evaluation.datasets.named import NAMED, open_named
from glesam_evaluation.datasets.sample import Dataset, Sample
from glesam_evaluation.datasets.stand_ins import SceneDataset
from glesam_runtime.errors import InputError
from glesam_runtime.verbosity import print_note

__all__ = [
    "NAMED",
    "CocoDataset",
    "Dataset",
    "FolderDataset",
    "Sample",
    "SceneDataset",
    "open_dataset",
]

_SCENES = re.compile(r"scenes:(\d{1,9})(?:@(\d{1,18}))?", re.ASCII)


def open_dataset(
    spec: str, images: Path | None = None, warn: Callable[[str], object] = print_note
) -> Dataset:
    """Open the dataset that `spec` names. Masks are checked now, and images are read later.

    Args:
        spec: `scenes:N` or `scenes:N@FIRST` for N procedural scenes of seeds FIRST (0) and up; a
            folder (see `folder`: images/ and masks/, or each mask beside its image); a COCO or LVIS
            JSON; or a published dataset, NAME:FOLDER or NAME/SPLIT:FOLDER, with a key of `NAMED`.
        images: folder of the images of a JSON, if they are not near it.
        warn: called with one line if images without an object are left out; by default it goes to
            stderr.

    Raises:
        InputError: there is no such dataset, it is empty, or a file in it is not valid. A dataset
            that opens is complete.
    """
    path = Path(spec)
    is_file = path.is_file()
    if images is not None and not is_file:
        raise InputError(f"--images {images}: is only for a COCO or LVIS JSON, and {spec} is none")
    if is_file:
        if path.suffix.lower() != ".json":
            raise InputError(
                f"{spec}: is no dataset; give a folder, a COCO or LVIS .json, or scenes:N"
            )
        return CocoDataset(path, images, warn)
    if path.is_dir():
        return FolderDataset(path, warn)
    named = open_named(spec, warn)
    if named is not None:
        return named
    match = _SCENES.fullmatch(spec)
    if match is not None:
        return SceneDataset(int(match[1]), int(match[2] or 0))
    if spec.startswith("scenes"):
        raise InputError(f"{spec}: write procedural scenes as scenes:N or scenes:N@FIRST")
    raise InputError(
        f"{spec}: no such folder or file; give scenes:N for procedural scenes, or NAME:FOLDER for "
        f"a published dataset ({', '.join(NAMED)})"
    )

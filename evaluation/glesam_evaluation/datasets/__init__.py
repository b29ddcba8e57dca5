"""Images with the masks of what is in them, from wherever one has them.

data = open_dataset("ECSSD")                            # folders of images and masks
data = open_dataset("annotations/instances_val2017.json")   # COCO, LVIS
data = open_dataset("scenes:200@1000")                  # procedural, nothing to download
sample = data[0]                                        # .name, .image [H,W,3], .masks [K,H,W]
"""

from __future__ import annotations

import re
from pathlib import Path

from glesam_evaluation.datasets.coco import CocoDataset
from glesam_evaluation.datasets.folder import FolderDataset
from glesam_evaluation.datasets.procedural import SceneDataset
from glesam_evaluation.datasets.sample import Dataset, Sample
from glesam_runtime.errors import InputError

__all__ = ["CocoDataset", "Dataset", "FolderDataset", "Sample", "SceneDataset", "open_dataset"]

_SCENES = re.compile(r"scenes:(\d{1,9})(?:@(\d{1,18}))?", re.ASCII)


def open_dataset(spec: str, images: Path | None = None) -> Dataset:
    """Open the dataset that `spec` names; images are read later, sizes are checked now.

    Args:
        spec: `scenes:N` or `scenes:N@FIRST` for N procedural scenes of seeds FIRST (0) and up; a
            folder (see `folder`: images/ and masks/, or each mask beside its image); or a COCO or
            LVIS JSON.
        images: where a JSON's images are, if not near it.

    Raises:
        InputError: no such dataset, nothing in it, or something wrong with it; `Dataset` is whole
            once it is open.
    """
    path = Path(spec)
    is_file = path.is_file()
    if images is not None and not is_file:
        raise InputError(f"--images {images}: goes with a COCO or LVIS JSON, not with {spec}")
    if is_file:
        if path.suffix.lower() != ".json":
            raise InputError(f"{spec}: a dataset is a folder, a COCO or LVIS .json, or scenes:N")
        return CocoDataset(path, images)
    if path.is_dir():
        return FolderDataset(path)
    match = _SCENES.fullmatch(spec)
    if match is not None:
        return SceneDataset(int(match[1]), int(match[2] or 0))
    if spec.startswith("scenes"):
        raise InputError(f"{spec}: procedural scenes are scenes:N or scenes:N@FIRST")
    raise InputError(f"{spec}: no such folder or file; or use scenes:N, for procedural scenes")

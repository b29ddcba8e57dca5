"""Open a published dataset by its name: which files it has, and what is missing.

`ecssd:FOLDER` opens the ECSSD in a folder, `dis5k/DIS-TE1:FOLDER` a split of DIS5K. A dataset given
by name has to be complete. A part of one opens without the name, as any folder does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from glesam_evaluation.datasets.coco import CocoDataset
from glesam_evaluation.datasets.folder import FolderDataset
from glesam_evaluation.datasets.sample import Dataset
from glesam_runtime.errors import InputError


@dataclass(frozen=True)
class Split:
    """The files of one split, relative to the dataset's folder."""

    images: str
    masks: str
    """A folder, equal to `images` if every mask lies beside its image, or a COCO JSON."""
    count: int | None = None
    """Number of images; None if it is not known, or for a JSON, which names its images."""


@dataclass(frozen=True)
class NamedDataset:
    """A published dataset: its splits, the first of which is the default, and its source."""

    title: str
    splits: Mapping[str, Split]
    source: str
    """What to download, in words."""
    bitmasks: bool = False


_HQ = "HQSeg-44K, the training data of HQ-SAM (sam-hq-team/sam-hq-training on Hugging Face)"

NAMED: Mapping[str, NamedDataset] = {
    "ecssd": NamedDataset(
        "ECSSD",
        {"all": Split("images", "ground_truth_mask", 1000)},
        "images.zip and ground_truth_mask.zip from the ECSSD page of the Chinese University of "
        "Hong Kong",
    ),
    "dis5k": NamedDataset(
        "DIS5K",
        {
            name: Split(f"{name}/im", f"{name}/gt", count)
            for name, count in {
                "DIS-VD": 470,
                "DIS-TR": 3000,
                "DIS-TE1": 500,
                "DIS-TE2": 500,
                "DIS-TE3": 500,
                "DIS-TE4": 500,
            }.items()
        },
        "DIS5K.zip from the repository xuebinqin/DIS",
    ),
    "thinobject5k": NamedDataset(
        "ThinObject-5K",
        {
            "test": Split("images_test", "masks_test", 500),
            "train": Split("images_train", "masks_train", 4748),
        },
        f"thin_object_detection.zip of {_HQ}, folder ThinObject5K",
    ),
    "msra10k": NamedDataset(
        "MSRA10K",
        {"all": Split(".", ".", 10_000)},
        f"cascade_psp.zip of {_HQ}, folder MSRA_10K",
    ),
    "coift": NamedDataset(
        "COIFT",
        {"all": Split("images", "masks")},
        f"thin_object_detection.zip of {_HQ}, folder COIFT",
    ),
    "hrsod": NamedDataset(
        "HRSOD",
        {"all": Split("images", "masks_max255")},
        f"thin_object_detection.zip of {_HQ}, folder HRSOD",
    ),
    "bdd100k": NamedDataset(
        "BDD-100K",
        {
            name: Split(f"images/10k/{name}", f"labels/ins_seg/bitmasks/{name}", count)
            for name, count in {"val": 1000, "train": 7000}.items()
        },
        "'10K Images' and 'Instance Segmentation' from the BDD-100K page of Berkeley DeepDrive",
        bitmasks=True,
    ),
    "lis": NamedDataset(
        "LIS",
        {
            name: Split("RGB-dark/JPEGImages", f"annotations/lis_coco_JPG_{name}+1.json")
            for name in ("test", "train")
        },
        "RGB-dark and annotations from the repository Linwei-Chen/LIS",
    ),
}
"""The datasets by the name that opens them."""

_SPEC = re.compile(r"(?P<name>[A-Za-z][\w-]+)(/(?P<split>[\w-]+))?:(?P<folder>.+)", re.DOTALL)


def open_named(spec: str, warn: Callable[[str], object]) -> Dataset | None:
    """Open `NAME:FOLDER` or `NAME/SPLIT:FOLDER`.

    Returns:
        None if the text before the colon is no name of a dataset.

    Raises:
        InputError: there is no such split, or files of the dataset are missing or not valid.
    """
    match = _SPEC.fullmatch(spec)
    if match is None or match["name"].lower() not in NAMED:
        return None
    named = NAMED[match["name"].lower()]
    split = _split(named, match["split"], match["name"])
    root = Path(match["folder"])
    images, masks = root / split.images, root / split.masks
    _require(named, root, images, masks)
    if masks.suffix == ".json":
        return CocoDataset(masks, images, warn)  # finds every image that the JSON names
    # A folder that is given is read as it is, so that masks beside the images are found too.
    folders = None if images == masks else (images, masks)
    data = FolderDataset(images, warn, folders=folders, bitmasks=named.bitmasks)
    if split.count is not None and data.found < split.count:
        raise InputError(
            f"{root}: has {data.found:,} of the {split.count:,} images of {named.title}; download "
            f"{named.source}, or give the folder without the name to use what is there"
        )
    return data


def _split(named: NamedDataset, wanted: str | None, name: str) -> Split:
    if wanted is None:
        return next(iter(named.splits.values()))
    for key, split in named.splits.items():
        if key.lower() == wanted.lower():
            return split
    raise InputError(f"{name}/{wanted}: {named.title} has the splits {', '.join(named.splits)}")


def _require(named: NamedDataset, root: Path, images: Path, masks: Path) -> None:
    """Check that the images and the masks of a dataset are there at all."""
    lacking = [
        str(path.relative_to(root)) + ("" if path.suffix == ".json" else "/")
        for path in dict.fromkeys((images, masks))
        if not (path.is_file() if path.suffix == ".json" else path.is_dir())
    ]
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; {named.title} is {named.source}")
    if lacking:
        raise InputError(
            f"{root}: is no complete {named.title}, because it has no {' and no '.join(lacking)}; "
            f"download {named.source}"
        )

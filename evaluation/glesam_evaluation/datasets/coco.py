"""COCO and LVIS instance annotations as a dataset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from glesam_evaluation.datasets.coco_masks import decode_segmentation
from glesam_evaluation.datasets.sample import Sample, name_some, size_of
from glesam_runtime.errors import InputError
from glesam_runtime.image import read_image

_SPLITS = ("train2017", "val2017", "test2017", "train2014", "val2014")


class _Image(msgspec.Struct):
    id: int
    height: int
    width: int
    file_name: str | None = None
    coco_url: str | None = None
    """Where LVIS says which file and split it is."""


class _Annotation(msgspec.Struct):
    image_id: int
    segmentation: msgspec.Raw = msgspec.Raw()
    iscrowd: int | bool = 0
    area: float | None = None


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]


@dataclass(frozen=True)
class _Entry:
    """An image and its objects, as JSON still: parsed, all of COCO would fill a machine."""

    name: str
    path: Path
    size: tuple[int, int]
    segmentations: tuple[bytes, ...]


class CocoDataset:
    """The images of an annotation file that have at least one object which is no crowd."""

    def __init__(self, annotations: Path, images: Path | None = None) -> None:
        """Read the file, find every image, and compare its size with the file's.

        Args:
            annotations: `instances_*.json`, or LVIS's.
            images: the folder of images. Without it they are looked for beside the file and in
                folders next to its own, named images or like the split (val2017).

        Raises:
            InputError: not such a file, no objects in it, images missing or of another size.
        """
        self._path = annotations
        content = _read(annotations)
        objects = defaultdict(list)
        for one in content.annotations:
            # Below one pixel there is nothing to prompt; COCO holds a few such polygons.
            if not one.iscrowd and bytes(one.segmentation) and (one.area is None or one.area >= 1):
                objects[one.image_id].append(bytes(one.segmentation))
        listed = [image for image in content.images if image.id in objects]
        if not listed:
            raise InputError(
                f"{annotations}: no image in it has an object; instance annotations are needed"
            )
        finder = _Finder(annotations, images)
        self._entries = [
            _Entry(
                _name(image, annotations),
                finder.find(image),
                (image.height, image.width),
                tuple(objects[image.id]),
            )
            for image in listed
        ]
        finder.require_all()
        self._check()

    @property
    def names(self) -> Sequence[str]:
        """The images' file names, as the file has them."""
        return [entry.name for entry in self._entries]

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:
        """Read an image and draw its objects; those that cover no pixel are left out."""
        entry = self._entries[index]
        where = f"{self._path}: {entry.name}"
        image = read_image(entry.path)
        if image.shape[:2] != entry.size:  # replaced since it was checked
            raise InputError(f"{where}: is not {entry.size[1]} x {entry.size[0]} pixels any more")
        drawn = [decode_segmentation(raw, *entry.size, where) for raw in entry.segmentations]
        masks = [mask for mask in drawn if mask.any()]
        if not masks:
            raise InputError(f"{where}: its objects cover no pixel; remove the image or draw them")
        return Sample(entry.name, image, np.stack(masks))

    def _check(self) -> None:
        """Names must tell images apart, and annotations be drawn on images of this size."""
        seen: set[str] = set()
        for entry in self._entries:
            if entry.name in seen:
                raise InputError(f"{self._path}: two images are called {entry.name}")
            seen.add(entry.name)
            size = size_of(entry.path)
            if size != entry.size:
                raise InputError(
                    f"{entry.path}: {size[1]} x {size[0]} pixels, its masks in {self._path.name} "
                    f"are {entry.size[1]} x {entry.size[0]}; use the images it was made for"
                )


class _Finder:
    """Looks for image files, first where the last one was."""

    def __init__(self, annotations: Path, images: Path | None) -> None:
        if images is not None and not images.is_dir():
            raise InputError(f"--images {images}: no such folder")
        beside = annotations.absolute().parent
        around = beside.parent
        self._roots = [images] if images else [beside, beside / "images", around / "images", around]
        self._named = [split for split in _SPLITS if split in annotations.stem]
        self._last = self._roots[0]
        self._annotations = annotations
        self._missing: list[str] = []
        self._asked = 0

    def find(self, image: _Image) -> Path:
        """The image's file; where there is none, that is kept for `require_all`."""
        self._asked += 1
        name = _name(image, self._annotations)
        # .../train2017/000000391895.jpg: LVIS divides COCO's images anew.
        split = image.coco_url.split("/")[-2:-1] if image.coco_url else []
        for root in [self._last, *self._roots]:
            for sub in ("", *split, *self._named):
                path = root / sub / name
                if path.is_file():
                    self._last = path.parents[name.count("/")]
                    return path
        self._missing.append(name)
        return Path(name)

    def require_all(self) -> None:
        """Raise InputError if any image was not found."""
        if self._missing:
            places = name_some(self._roots)
            raise InputError(
                f"{self._annotations}: {len(self._missing)} of its {self._asked} images are not "
                f"in {places}: {name_some(self._missing)}; say where with --images"
            )


def _read(path: Path) -> _File:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not a COCO or LVIS annotation file ({error})") from error


def _name(image: _Image, annotations: Path) -> str:
    name = image.file_name or (image.coco_url or "").rpartition("/")[2]
    if not name:
        raise InputError(f"{annotations}: image {image.id} has neither file_name nor coco_url")
    return name

"""Read COCO and LVIS instance annotations as a dataset."""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np

from glesam_evaluation.datasets.coco_segmentation import (
    covers_pixels,
    decode_segmentation,
    has_no_mask,
    parse_segmentation,
)
from glesam_evaluation.datasets.sample import Sample, fingerprint_of, name_some, size_of
from glesam_runtime.errors import InputError
from glesam_runtime.image_file import read_image

_SPLITS = ("train2017", "val2017", "test2017", "train2014", "val2014")


_Id: TypeAlias = int | float | str


class _Image(msgspec.Struct):
    id: _Id
    height: float
    width: float
    file_name: str | None = None
    coco_url: str | None = None
    """URL from which LVIS images get their file name and split."""


class _Annotation(msgspec.Struct):
    image_id: _Id
    segmentation: msgspec.Raw = msgspec.Raw()
    iscrowd: float | bool | None = 0
    area: float | None = None


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]


@dataclass(frozen=True)
class _Entry:
    """An image and its objects as unparsed JSON; all of COCO parsed would not fit into memory."""

    name: str
    path: Path
    size: tuple[int, int]
    segmentations: tuple[bytes, ...]


class CocoDataset:
    """The images of an annotation file that have at least one object that is not a crowd."""

    def __init__(
        self,
        annotations: Path,
        images: Path | None = None,
        warn: Callable[[str], object] = lambda text: None,
    ) -> None:
        """Read the annotations, find every image and check its size and its objects.

        Args:
            annotations: `instances_*.json`, or a JSON of LVIS.
            images: folder of the images. By default they are searched beside the file and in
                neighbouring folders that are named images or like the split (val2017).
            warn: called with one line if annotations without a mask are left out.

        Raises:
            InputError: the file is not such a file or has no objects, a segmentation is not valid,
                or images are missing or have another size.
        """
        self._path = annotations
        content = _read(annotations)
        objects = defaultdict(list)
        for one in content.annotations:
            # COCO contains a few polygons of less than one pixel, which cannot be prompted. Tools
            # that do not compute areas write 0.
            if not one.iscrowd and not 0 < (one.area or 0) < 1:
                objects[_key(one.image_id)].append(bytes(one.segmentation))
        finder = _Finder(annotations, images)
        listed = [image for image in content.images if _key(image.id) in objects]
        self._entries = []
        for image in listed:
            name = _name(image, annotations)
            found = tuple(objects[_key(image.id)])
            path = finder.find(image, name)
            self._entries.append(_Entry(name, path, _size(image, annotations), found))
        finder.require_all()
        self._check()
        self._leave_out_empty(warn)

    @property
    def names(self) -> Sequence[str]:
        """Return the file names of the images, as the annotations give them."""
        return [entry.name for entry in self._entries]

    @property
    def fingerprint(self) -> str:
        """Return a text that changes with the images' names and sizes in bytes, and the objects.

        Raises:
            InputError: an image cannot be read any more.
        """
        parts = ((e.name, e.path.stat().st_size, e.segmentations) for e in self._entries)
        try:
            return f"annotations of {len(self)} images ({fingerprint_of(parts)})"
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:
        """Read an image and draw its objects, without those that cover no pixel."""
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
        """Check that names are unique and that images have the size of their annotations."""
        seen: set[str] = set()
        for entry in self._entries:
            if entry.name in seen:
                raise InputError(f"{self._path}: two images have the name {entry.name}")
            seen.add(entry.name)
            size = size_of(entry.path)
            if size != entry.size:
                raise InputError(
                    f"{entry.path}: has {size[1]} x {size[0]} pixels, but its masks in "
                    f"{self._path.name} "
                    f"have {entry.size[1]} x {entry.size[0]}; use the images of these annotations"
                )

    def _leave_out_empty(self, warn: Callable[[str], object]) -> None:
        """Check all segmentations, and keep the images that have one with a pixel."""
        kept, empty, unmasked = [], [], 0
        for entry in self._entries:
            where = f"{self._path}: {entry.name}"
            parsed = [parse_segmentation(raw, *entry.size, where) for raw in entry.segmentations]
            raws = [
                raw
                for raw, one in zip(entry.segmentations, parsed, strict=True)
                if not has_no_mask(one)
            ]
            unmasked += len(parsed) - len(raws)
            if any(covers_pixels(one, *entry.size) for one in parsed):
                kept.append(replace(entry, segmentations=tuple(raws)))
            else:
                empty.append(entry.name)
        self._entries = kept
        if not kept:
            why = f" ({name_some(empty)}: no mask, or it covers no pixel)" if empty else ""
            raise InputError(
                f"{self._path}: no image in it has an object{why}; give instance annotations with "
                "polygons or run lengths"
            )
        if unmasked:
            warn(f"{self._path}: {unmasked} annotations without a mask are left out")
        if empty:
            warn(
                f"{self._path}: {len(empty)} of {len(kept) + len(empty)} images are left out, "
                f"because their objects cover no pixel: {name_some(empty)}"
            )


class _Finder:
    """Finds image files, and searches the folder of the last one first."""

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

    def find(self, image: _Image, name: str) -> Path:
        """Return the file of an image; a missing one is recorded for `require_all`."""
        self._asked += 1
        # .../train2017/000000391895.jpg: LVIS splits the images of COCO differently.
        split = image.coco_url.split("/")[-2:-1] if image.coco_url else []
        for spelled in _spellings(name):
            if spelled.is_absolute():
                if _is_file(spelled):
                    return spelled
                continue
            for root in [self._last, *self._roots]:
                for sub in ("", *split, *self._named):
                    path = root / sub / spelled
                    if _is_file(path):
                        self._last = path.parents[len(spelled.parts) - 1]
                        return path
        self._missing.append(name)
        return Path(name)

    def require_all(self) -> None:
        """Raise InputError if any image was not found."""
        if self._missing:
            places = name_some(self._roots)
            raise InputError(
                f"{self._annotations}: {len(self._missing)} of its {self._asked} images are not "
                f"in {places}: {name_some(self._missing)}; give their folder with --images"
            )


def _spellings(name: str) -> list[Path]:
    """Return the paths that a file name can mean, as written by any tool on any system."""
    slashed = name.replace("\\", "/")
    spellings = [Path(name), Path(slashed)]
    if slashed.startswith("/") or slashed[1:3] == ":/":  # the place on another machine
        spellings.append(Path(slashed.rpartition("/")[2]))
    return [path for path in dict.fromkeys(spellings) if path.parts]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or has a zero byte
        return False


def _read(path: Path) -> _File:
    try:
        return msgspec.json.decode(path.read_bytes().removeprefix(codecs.BOM_UTF8), type=_File)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not a COCO or LVIS annotation file ({error})") from error


def _key(number: _Id) -> str:
    """Return an image id in one form: some tools write 7, "7" or 7.0 for the same image."""
    if isinstance(number, float) and number.is_integer():
        return str(int(number))
    return str(number)


def _size(image: _Image, annotations: Path) -> tuple[int, int]:
    """Return (height, width) as integers."""
    height, width = float(image.height), float(image.width)
    if not (height.is_integer() and width.is_integer()):
        raise InputError(
            f"{annotations}: {_name(image, annotations)} has a size of {width:g} x {height:g} "
            "pixels; write whole numbers"
        )
    return int(height), int(width)


def _name(image: _Image, annotations: Path) -> str:
    name = image.file_name or (image.coco_url or "").rpartition("/")[2]
    if not name:
        raise InputError(f"{annotations}: image {image.id} has neither file_name nor coco_url")
    return name

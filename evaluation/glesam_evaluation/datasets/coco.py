"""Read COCO and LVIS instance annotations as a dataset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from glesam_evaluation.datasets.sample import Sample, fingerprint_of, name_some, size_of
from glesam_runtime.errors import InputError
from glesam_runtime.image import read_image
from glesam_runtime.rle import Rle, decode_rle, runs_to_mask

_SPLITS = ("train2017", "val2017", "test2017", "train2014", "val2014")


class _Image(msgspec.Struct):
    id: int
    height: int
    width: int
    file_name: str | None = None
    coco_url: str | None = None
    """URL from which LVIS images get their file name and split."""


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
    """An image and its objects as unparsed JSON; all of COCO parsed would not fit into memory."""

    name: str
    path: Path
    size: tuple[int, int]
    segmentations: tuple[bytes, ...]


class CocoDataset:
    """The images of an annotation file that have at least one object that is not a crowd."""

    def __init__(self, annotations: Path, images: Path | None = None) -> None:
        """Read the annotations, find every image and check its size.

        Args:
            annotations: `instances_*.json`, or a JSON of LVIS.
            images: folder of the images. By default they are searched beside the file and in
                neighbouring folders that are named images or like the split (val2017).

        Raises:
            InputError: the file is not such a file or has no objects, or images are missing or have
                another size.
        """
        self._path = annotations
        content = _read(annotations)
        objects = defaultdict(list)
        for one in content.annotations:
            # COCO contains a few polygons of less than one pixel, which cannot be prompted.
            if not one.iscrowd and bytes(one.segmentation) and (one.area is None or one.area >= 1):
                objects[one.image_id].append(bytes(one.segmentation))
        listed = [image for image in content.images if image.id in objects]
        if not listed:
            raise InputError(
                f"{annotations}: no image in it has an object; give instance annotations"
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

    def find(self, image: _Image) -> Path:
        """Return the file of an image; a missing one is recorded for `require_all`."""
        self._asked += 1
        name = _name(image, self._annotations)
        # .../train2017/000000391895.jpg: LVIS splits the images of COCO differently.
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
                f"in {places}: {name_some(self._missing)}; give their folder with --images"
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


class _Runs(msgspec.Struct):
    size: tuple[int, int]
    counts: list[int] | str


_decoder = msgspec.json.Decoder(list[list[float]] | _Runs)


def decode_segmentation(raw: bytes, height: int, width: int, where: str) -> npt.NDArray[np.bool_]:
    """Draw the `segmentation` of an annotation as a mask, bool [height,width].

    A segmentation is a list of polygons, a list of run lengths, or a coded string of run lengths.
    pycocotools draws polygons, because its rule for pixels on an edge is part of the format.
    Polygons of fewer than three corners are empty.

    Args:
        raw: JSON of the segmentation.
        height: height of the image, pixels.
        width: width of the image, pixels.
        where: name of the annotation in error messages.

    Raises:
        InputError: the segmentation is not valid or has another size, or pycocotools is not
            installed.
    """
    try:
        segmentation = _decoder.decode(raw)
        if isinstance(segmentation, _Runs):
            return _from_runs(segmentation, height, width)
    except (msgspec.DecodeError, RecursionError, InputError) as error:
        raise InputError(f"{where}: its segmentation cannot be read ({error})") from error
    return _from_polygons(segmentation, height, width)


def _from_runs(runs: _Runs, height: int, width: int) -> npt.NDArray[np.bool_]:
    if runs.size != (height, width):
        raise InputError(f"size {list(runs.size)}, but the image has {[height, width]}")
    if isinstance(runs.counts, str):
        return decode_rle(Rle(size=[height, width], counts=runs.counts))
    counts = runs.counts
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise InputError(f"its runs do not fill {height} x {width} pixels")
    return runs_to_mask(counts, height, width)


def _from_polygons(polygons: list[list[float]], height: int, width: int) -> npt.NDArray[np.bool_]:
    corners = [polygon for polygon in polygons if len(polygon) >= 6 and len(polygon) % 2 == 0]
    if not corners:
        return np.zeros((height, width), np.bool_)
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise InputError(
            "pycocotools is not installed, and COCO polygons need it: "
            "pip install 'glesam-deploy[training]'"
        ) from error
    # The C code of pycocotools walks along every edge, so a corner far outside would use up memory.
    limits = np.asarray([width, height], np.float64)
    inside = [np.clip(np.reshape(p, (-1, 2)), 0, limits).ravel().tolist() for p in corners]
    merged = mask.merge(mask.frPyObjects(inside, height, width))
    drawn: npt.NDArray[np.bool_] = mask.decode(merged).astype(np.bool_)
    return drawn

"""Read COCO and LVIS instance annotations as a dataset."""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from glesam_evaluation.datasets.sample import Sample, fingerprint_of, name_some, size_of
from glesam_runtime.errors import InputError
from glesam_runtime.image import read_image
from glesam_runtime.rle import Rle, decode_rle, runs_to_mask

_LONGEST_OUTLINE = 1 << 20
"""Outline in pixels up to which pycocotools draws a polygon as it is; it needs 80 bytes a pixel."""
_FARTHEST = 1e15
"""Largest coordinate that float64 still holds to a part of a pixel."""
_MARGIN = 16
"""Pixels around the image that a longer polygon keeps."""
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
            parsed = [_parse(raw, *entry.size, where) for raw in entry.segmentations]
            raws = [
                raw
                for raw, one in zip(entry.segmentations, parsed, strict=True)
                if not _has_no_mask(one)
            ]
            unmasked += len(parsed) - len(raws)
            if any(_covers_pixels(one, *entry.size) for one in parsed):
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


class _Runs(msgspec.Struct):
    size: tuple[int, int]
    counts: list[int] | str


_Parsed: TypeAlias = list[list[float]] | _Runs | None

_decoder = msgspec.json.Decoder(_Parsed)


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
    parsed = _parse(raw, height, width, where)
    if isinstance(parsed, _Runs):
        return _from_runs(parsed, height, width)
    return _from_polygons(parsed or [], height, width)


def _parse(raw: bytes, height: int, width: int, where: str) -> _Parsed:
    """Return a segmentation after checking that it can be drawn.

    Raises:
        InputError: it is not valid or has another size.
    """
    try:
        parsed = _decoder.decode(raw) if raw else None
        if isinstance(parsed, _Runs):
            _check_runs(parsed, height, width)
        elif parsed and len(parsed) >= 3 and all(len(corner) == 2 for corner in parsed):
            raise InputError("corners in pairs; write a polygon as [x1, y1, x2, y2, ...]")
    except (msgspec.DecodeError, RecursionError, InputError) as error:
        raise InputError(f"{where}: its segmentation cannot be read ({error})") from error
    return parsed


def _has_no_mask(parsed: _Parsed) -> bool:
    """Return whether an annotation has only a box, or polygons of fewer than three corners."""
    return not isinstance(parsed, _Runs) and not _polygons(parsed)


def _polygons(parsed: list[list[float]] | None) -> list[list[float]]:
    return [one for one in parsed or [] if len(one) >= 6 and len(one) % 2 == 0]


def _covers_pixels(parsed: _Parsed, height: int, width: int) -> bool:
    """Return whether the mask of a segmentation has a pixel; faster than drawing it."""
    if not isinstance(parsed, _Runs):
        coded = _coded_polygons(parsed or [], height, width)
        return coded is not None and int(_pycocotools().area(coded)) > 0
    if isinstance(parsed.counts, str):
        return bool(_from_runs(parsed, height, width).any())
    return sum(parsed.counts[1::2]) > 0


def _check_runs(runs: _Runs, height: int, width: int) -> None:
    if runs.size != (height, width):
        raise InputError(f"size {list(runs.size)}, but the image has {[height, width]}")
    if isinstance(runs.counts, str):
        decode_rle(Rle(size=[height, width], counts=runs.counts))
    elif min(runs.counts, default=0) < 0 or sum(runs.counts) != height * width:
        raise InputError(f"its runs do not fill {height} x {width} pixels")


def _from_runs(runs: _Runs, height: int, width: int) -> npt.NDArray[np.bool_]:
    if isinstance(runs.counts, str):
        return decode_rle(Rle(size=[height, width], counts=runs.counts))
    return runs_to_mask(runs.counts, height, width)


def _from_polygons(polygons: list[list[float]], height: int, width: int) -> npt.NDArray[np.bool_]:
    coded = _coded_polygons(polygons, height, width)
    if coded is None:
        return np.zeros((height, width), np.bool_)
    drawn: npt.NDArray[np.bool_] = _pycocotools().decode(coded).astype(np.bool_)
    return drawn


def _coded_polygons(polygons: list[list[float]], height: int, width: int) -> Any:
    """Return the polygons together as run lengths of pycocotools, or None without any."""
    corners = _polygons(polygons)
    if not corners:
        return None
    mask = _pycocotools()
    clipped = [_near(np.reshape(p, (-1, 2)), height, width) for p in corners]
    near = [polygon.ravel().tolist() for polygon in clipped if len(polygon) >= 3]
    return mask.merge(mask.frPyObjects(near, height, width)) if near else None


def _pycocotools() -> ModuleType:
    """Return pycocotools.mask.

    Raises:
        InputError: it is not installed.
    """
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise InputError(
            "pycocotools is not installed, and COCO polygons need it: "
            "pip install 'glesam-deploy[training]'"
        ) from error
    module: ModuleType = mask
    return module


def _near(corners: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.float64]:
    """Return a polygon unchanged, or its part near the image if its outline is very long.

    The C code of pycocotools draws any part outside correctly, but walks along the whole outline
    in fifths of a pixel, so a corner far outside would use up memory. The border of the part that
    is left is beside the image, so the pixels stay those of the whole polygon.
    """
    steps = np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1)
    if steps.sum() + np.abs(corners).max() <= _LONGEST_OUTLINE:
        return corners
    corners = np.clip(corners, -_FARTHEST, _FARTHEST)
    for axis, size in ((0, width), (1, height)):
        corners = _cut(corners, axis, -_MARGIN, 1)
        corners = _cut(corners, axis, size + _MARGIN, -1)
    return corners


def _cut(
    corners: npt.NDArray[np.float64], axis: int, bound: float, sign: int
) -> npt.NDArray[np.float64]:
    """Cut a polygon [N,2] at a line across an axis, and keep one side (Sutherland and Hodgman).

    Args:
        corners: the polygon; it may be empty.
        axis: 0 for a vertical line (x), 1 for a horizontal one (y).
        bound: position of the line on the axis.
        sign: 1 keeps what is above the bound, -1 what is below it.
    """
    inside = sign * (corners[:, axis] - bound) >= 0
    before, before_inside = np.roll(corners, 1, axis=0), np.roll(inside, 1)
    crossing = inside != before_inside
    span = np.where(crossing, corners[:, axis] - before[:, axis], 1)
    share = (bound - before[:, axis]) / span
    met = before + share[:, None] * (corners - before)
    met[:, axis] = bound
    # Each corner that is kept comes after the point where its edge crosses the line, if it does.
    both = np.stack([met, corners], axis=1).reshape(-1, 2)
    kept: npt.NDArray[np.float64] = both[np.stack([crossing, inside], axis=1).ravel()]
    return kept

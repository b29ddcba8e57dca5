"""Read folders of image and mask files, in the layouts of common segmentation datasets."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from glesam_evaluation.datasets.bitmasks import count_bitmasks, read_bitmasks
from glesam_evaluation.datasets.mask_files import count_objects, read_masks
from glesam_evaluation.datasets.sample import (
    Sample,
    fingerprint_of,
    name_some,
    printable,
    size_of,
)
from glesam_runtime.errors import InputError
from glesam_runtime.image_file import open_picture, read_image

_IMAGES = re.compile(r"(?P<before>.*?[-_])??(images?|imgs?|im|lr)(?P<after>[-_].*)?", re.IGNORECASE)
_MASKS = re.compile(
    r"(?P<before>.*?[-_])??(ground_?truth_masks?|ground_?truth|gts?|masks?)(?P<after>[-_].*)?",
    re.IGNORECASE,
)
"""Folder names, such as images and ground_truth_mask (ECSSD), DUTS-TE-Image and DUTS-TE-Mask, im
and gt, images_test and masks_test (ThinObject5K), lr and gt (LQSeg). The rest of both names must be
equal."""

_JPEGS = {".jpg", ".jpeg"}
_SUFFIXES = _JPEGS | {".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"}
_RELEASED_SIZE = (512, 512)
"""Height and width of all images of LQSeg, whose masks keep the size of the clear images."""

_FLAT_MASK = re.compile(r"(?P<stem>.+)_mask(_.*)?")


@dataclass(frozen=True)
class _Pair:
    """An image file and the files of its masks."""

    name: str
    image: Path
    masks: tuple[Path, ...]


class FolderDataset:
    """A dataset of image and mask files that are paired by name."""

    def __init__(
        self,
        folder: Path,
        warn: Callable[[str], object] = lambda text: None,
        *,
        folders: tuple[Path, Path] | None = None,
        bitmasks: bool = False,
    ) -> None:
        """Find the pairs, compare their sizes by the file headers, and read every mask once.

        If all images have 512 x 512 pixels and masks do not, as in LQSeg, images are stretched to
        the size of their masks.

        Args:
            folder: the folder.
            warn: called with one line if images are stretched, or left out without an object.
            folders: the folders of the images and of the masks; None finds them.
            bitmasks: whether the masks are bitmasks of BDD-100K.

        Raises:
            InputError: there are no images, an image has no mask, two images have one name, a mask
                has another size than its image, no mask has an object, or a file is not an image
                or not a mask.
        """
        pairs = sorted(_find_pairs(folder, folders), key=lambda pair: pair.name)
        self.found = len(pairs)
        """Number of images, including those without an object."""
        if _check(pairs, folder):
            warn(f"{folder}: images of 512 x 512 pixels are stretched to the size of their masks")
        self._read = read_bitmasks if bitmasks else read_masks
        self._pairs = _with_objects(pairs, folder, warn, bitmasks)

    @property
    def names(self) -> Sequence[str]:
        """Return the file names of the images without their suffixes."""
        return [pair.name for pair in self._pairs]

    @property
    def fingerprint(self) -> str:
        """Return a text that changes with the images' names and sizes in bytes, and the masks.

        Masks are small files, and one of them often has as many bytes as another.

        Raises:
            InputError: a file cannot be read any more.
        """
        try:
            parts = [
                (p.name, p.image.stat().st_size, fingerprint_of(map(Path.read_bytes, p.masks)))
                for p in self._pairs
            ]
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error
        return f"a folder of {len(self)} images ({fingerprint_of(parts)})"

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Sample:
        """Read an image and its masks, without empty ones."""
        pair = self._pairs[index]
        image = read_image(pair.image)
        masks = []
        for path in pair.masks:
            found = self._read(path)
            if found.shape[1:] != image.shape[:2]:
                if image.shape[:2] != _RELEASED_SIZE:  # replaced since it was checked
                    raise _size_error(path, found.shape[1:], image.shape[:2])
                image = _stretched(image, found.shape[1], found.shape[2])
            masks.append(found)
        joined = np.concatenate(masks)
        if not len(joined):
            raise _empty_error(pair)
        return Sample(pair.name, image, joined)


def _find_pairs(folder: Path, folders: tuple[Path, Path] | None) -> list[_Pair]:
    folders = folders or _image_and_mask_folder(folder)
    if folders is None:
        images, masks = _split_flat(image_files(folder))
        pattern = "beside it"
    else:
        images, mask_folder = image_files(folders[0]), folders[1]
        masks = [(path.stem, path) for path in image_files(mask_folder)]
        for sub in sorted(path for path in mask_folder.iterdir() if path.is_dir()):
            masks += [(sub.name, path) for path in image_files(sub)]
        pattern = f"in {mask_folder}"
    if not images:
        raise InputError(
            f"{folder}: no images; a dataset needs images/ and masks/, or photo.jpg beside "
            "photo_mask.png"
        )
    by_stem = _by_stem(images)
    found = defaultdict(list)
    for stem, path in masks:
        owner = _owner(stem, by_stem)
        if owner is not None:
            found[owner].append(path)
    lacking = [path.name for stem, path in by_stem.items() if stem not in found]
    if lacking:
        raise InputError(
            f"{folder}: no mask {pattern} for {name_some(lacking)}; remove them or add masks"
        )
    return [
        _Pair(printable(stem), path, tuple(sorted(found[stem]))) for stem, path in by_stem.items()
    ]


def _image_and_mask_folder(folder: Path) -> tuple[Path, Path] | None:
    """Return the image and mask folder of a dataset, given its folder or its image folder.

    Returns:
        None if there is no such pair.
    """
    pairs = _folder_pairs(folder)
    exact = [pair for pair in pairs if (pair[0].name, pair[1].name) == ("images", "masks")]
    if len(pairs) > 1 and not exact:
        raise InputError(
            f"{folder}: contains several datasets, {name_some(pair[0].name for pair in pairs)}; "
            "give the image folder of one of them"
        )
    if pairs:
        return (exact or pairs)[0]
    here = folder.resolve()
    return next((pair for pair in _folder_pairs(here.parent) if pair[0] == here), None)


def _folder_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Return the subfolders of images, each with the subfolder of its masks."""
    subs = sorted(path for path in folder.iterdir() if path.is_dir())
    masks = {_rest(match): path for path in subs if (match := _MASKS.fullmatch(path.name))}
    return [
        (path, masks[_rest(match)])
        for path in subs
        if (match := _IMAGES.fullmatch(path.name)) and _rest(match) in masks
    ]


def _rest(match: re.Match[str]) -> tuple[str, str]:
    """Return the parts of a folder name around the word for images or masks."""
    return (match["before"] or "").lower(), (match["after"] or "").lower()


def _split_flat(files: Sequence[Path]) -> tuple[list[Path], list[tuple[str, Path]]]:
    """Split the files of one folder into images, and masks with the stem of their image.

    A mask is `STEM_mask.*` or `STEM_mask_*.*` where a file with that STEM exists. A file that is
    not a JPEG beside a JPEG of the same stem is a mask too (as in MSRA10K).
    """
    stems = {path.stem for path in files}
    jpegs = {path.stem for path in files if path.suffix.lower() in _JPEGS}
    images, masks = [], []
    for path in files:
        match = _FLAT_MASK.fullmatch(path.stem)
        if match is not None and match["stem"] in stems:
            masks.append((match["stem"], path))
        elif path.stem in jpegs and path.suffix.lower() not in _JPEGS:
            masks.append((path.stem, path))
        else:
            images.append(path)
    return images, masks


def _by_stem(images: Iterable[Path]) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for path in images:
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise InputError(
                f"{path}: {other.name} has the same name, so a mask could belong to "
                f"either; rename one"
            )
    return by_stem


def _owner(stem: str, by_stem: dict[str, Path]) -> str | None:
    """Return the stem of the image of a mask: its own stem, or the longest one before a `_`."""
    while stem not in by_stem:
        stem, underscore, _ = stem.rpartition("_")
        if not underscore:
            return None
    return stem


def image_files(folder: Path) -> list[Path]:
    """Return the image files of a folder, sorted by name, without hidden files."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _check(pairs: Sequence[_Pair], folder: Path) -> bool:
    """Compare the sizes in all file headers, so that a bad pair is found before a long run.

    Returns:
        Whether images have to be stretched to the size of their masks.
    """
    wrong: list[tuple[Path, tuple[int, int], tuple[int, int]]] = []
    sizes = [size_of(pair.image) for pair in pairs]
    may_stretch, stretches = all(size == _RELEASED_SIZE for size in sizes), False
    for pair, size in zip(pairs, sizes, strict=True):
        masks = {path: size_of(path) for path in pair.masks}
        if may_stretch and len(set(masks.values())) == 1:
            stretches |= size not in masks.values()
            continue
        wrong += [(path, mask, size) for path, mask in masks.items() if mask != size]
    if len(wrong) == 1:
        raise _size_error(*wrong[0])
    if wrong:
        raise InputError(
            f"{folder}: {len(wrong)} masks have another size than their image: "
            f"{name_some(path.name for path, _, _ in wrong)}; resize them"
        )
    return stretches


def _with_objects(
    pairs: Sequence[_Pair], folder: Path, warn: Callable[[str], object], bitmasks: bool
) -> list[_Pair]:
    """Return the pairs with an object, so that a black mask does not end a long run."""
    paths = [path for pair in pairs for path in pair.masks]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        count = count_bitmasks if bitmasks else count_objects
        counts = dict(zip(paths, pool.map(count, paths), strict=True))
    kept = [pair for pair in pairs if any(counts[path] for path in pair.masks)]
    empty = [pair for pair in pairs if not any(counts[path] for path in pair.masks)]
    if not kept:
        raise _empty_error(empty[0])
    if empty:
        warn(
            f"{folder}: {len(empty)} of {len(pairs)} images are left out, because their masks are "
            f"empty: {name_some(pair.masks[0].name for pair in empty)}"
        )
    return kept


def _empty_error(pair: _Pair) -> InputError:
    with open_picture(pair.masks[0]) as mask:
        hint = "; for bitmasks of BDD-100K give bdd100k:FOLDER" if mask.mode == "RGBA" else ""
    return InputError(
        f"{pair.masks[0]}: is empty, so {pair.image.name} has no object; "
        f"remove the image or draw its mask{hint}"
    )


def _stretched(image: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.uint8)


def _size_error(path: Path, mask: tuple[int, ...], image: tuple[int, ...]) -> InputError:
    return InputError(
        f"{path}: the mask has {mask[1]} x {mask[0]} pixels, but its image has {image[1]} x "
        f"{image[0]}; resize the mask (only images of 512 x 512, as LQSeg has, may differ)"
    )

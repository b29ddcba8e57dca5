"""Use procedural scenes as a dataset, and find images that have no masks: files, or scenes.

A range of seeds is a dataset of scenes, and no file is needed. Each use of scenes has seeds of its
own, so that no scene is both calibrated on and judged on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from glesam_evaluation.datasets.folder import image_files
from glesam_evaluation.datasets.sample import Sample, printable
from glesam_runtime.errors import InputError
from glesam_runtime.image_file import read_image

FIRST_CALIBRATION_SCENE = 1_000_000
"""Seed of the first scene that a calibration uses. Trainings and evaluations start at 0, and the
comparison with the float bundle at 2,000,000."""

SIDE = 256
MIN_AREA = 0.004
"""Area of the smallest instance kept, as a share of the image: 16 x 16 pixels of 256 x 256."""


class SceneDataset:
    """A dataset of procedural scenes with consecutive seeds."""

    def __init__(self, count: int, first: int = 0, shape: tuple[int, int] = (SIDE, SIDE)) -> None:
        """Use the scenes of the seeds `first` to `first + count - 1`.

        Args:
            count: number of scenes.
            first: seed of the first one.
            shape: height and width in pixels.

        Raises:
            InputError: `count` is below 1, `first` is below 0, or OpenCV is not installed.
        """
        if count < 1 or first < 0:
            raise InputError(
                f"scenes:{count}@{first}: needs at least 1 scene, and seeds of at least 0"
            )
        try:
            import glesam_evaluation.scenes  # noqa: F401 - fails now, not at the first sample
        except ModuleNotFoundError as error:
            if error.name not in ("cv2", "scipy"):
                raise
            raise InputError(
                f"{error.name} is not installed: pip install 'glesam-deploy[calibration]'"
            ) from error
        self._seeds, self._shape = range(first, first + count), shape

    @property
    def names(self) -> Sequence[str]:
        """Return the names, `scene-<seed>`: the name of a scene does not depend on the range."""
        return [f"scene-{seed}" for seed in self._seeds]

    @property
    def fingerprint(self) -> str:
        """Return which scenes these are."""
        height, width = self._shape
        size = "" if self._shape == (SIDE, SIDE) else f", {width} x {height}"
        return f"scenes:{len(self)}@{self._seeds[0]}{size}"

    def __len__(self) -> int:
        return len(self._seeds)

    def __getitem__(self, index: int) -> Sample:
        """Make a scene, with its instances of at least MIN_AREA, or with the largest if none is."""
        from glesam_evaluation.scenes import make_scene

        seed = self._seeds[index]
        scene = make_scene(seed, *self._shape)
        masks = scene.masks
        areas = np.count_nonzero(masks, axis=(1, 2))
        kept = areas >= MIN_AREA * scene.instances.size
        if not kept.any():
            kept[areas.argmax()] = True
        return Sample(f"scene-{seed}", scene.image, masks[kept])


@dataclass(frozen=True)
class ImageSource:
    """An image without masks: a file, or the procedural scene of a seed."""

    name: str
    path: Path | None
    scene: int | None = None

    def read(self) -> npt.NDArray[np.uint8]:
        """Read the pixels, uint8 RGB [H,W,3].

        Raises:
            InputError: the file cannot be read.
        """
        if self.path is not None:
            return read_image(self.path)
        assert self.scene is not None, "a source is a file or a scene"
        return SceneDataset(1, self.scene)[0].image


def scene_sources(count: int) -> list[ImageSource]:
    """Return the procedural scenes that a calibration uses if the user gives no images."""
    seeds = range(FIRST_CALIBRATION_SCENE, FIRST_CALIBRATION_SCENE + count)
    return [ImageSource(f"scene-{seed}", None, seed) for seed in seeds]


def find_sources(places: Sequence[Path]) -> list[ImageSource]:
    """Return the images that a user names.

    Args:
        places: image files, folders of image files, or .txt files with one path per line.

    Raises:
        InputError: a place does not exist, or contains no images.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            files = image_files(place)
            if not files:
                raise InputError(f"{place}: no images in this folder")
            found += files
        elif place.suffix.lower() == ".txt":
            found += _listed(place)
        elif not place.exists():
            raise InputError(f"{place}: no such file or folder")
        else:
            found.append(place)
    return [ImageSource(printable(path.name), path) for path in dict.fromkeys(found)]


def _listed(file: Path) -> list[Path]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as a list of paths ({error})") from error
    paths = [file.parent / line.strip() for line in lines if line.strip()]
    if not paths:
        raise InputError(f"{file}: lists no images")
    return paths

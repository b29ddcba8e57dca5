"""Scenes painted once and kept on disk, for trainings that see each of them many times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from glesam_calibration.datasets import Sample
from glesam_calibration.datasets.procedural import MIN_AREA
from glesam_calibration.scenes import make_scene
from glesam_runtime.staging import staged_file


class StoredScenes:
    """A `Dataset` over arrays on disk: images and instance numbers of scenes FIRST..FIRST+N-1."""

    def __init__(self, path: Path, first: int, count: int) -> None:
        self.path, self.first, self.count = path, first, count
        self._arrays: npt.NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return self.count

    @property
    def names(self) -> Sequence[str]:
        """The seeds, in words."""
        return [f"scene-{self.first + index}" for index in range(self.count)]

    def first_pictures(self, count: int) -> StoredScenes:
        """The first of them alone."""
        return StoredScenes(self.path, self.first, min(count, self.count))

    def __getitem__(self, index: int) -> Sample:
        stored = self._open()[index]
        image, instances = np.ascontiguousarray(stored[..., :3]), stored[..., 3]
        areas = np.bincount(instances.ravel())
        areas[0] = 0
        kept = np.flatnonzero(areas >= MIN_AREA * instances.size)
        if not kept.size:
            kept = np.asarray([areas.argmax()])
        return Sample(f"scene-{self.first + index}", image, instances[None] == kept[:, None, None])

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_arrays": None}

    def _open(self) -> npt.NDArray[np.uint8]:
        if self._arrays is None:
            self._arrays = np.load(self.path, mmap_mode="r")
        return self._arrays


def store_scenes(
    folder: Path,
    count: int,
    first: int,
    size: int,
    progress: Callable[[int], object] = lambda _: None,
) -> StoredScenes:
    """Paint scenes, or find them painted: `[N, size, size, 4]` uint8, RGB and instance number.

    Args:
        folder: where the file goes.
        count: number of scenes.
        first: the first one's seed.
        size: pixels of a side.
        progress: called with the number of scenes just painted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"scenes-{first}-{count}-{size}.npy"
    if not path.is_file():
        with staged_file(path) as partial_path, ProcessPoolExecutor() as pool:
            stored = np.lib.format.open_memmap(
                partial_path, "w+", dtype=np.uint8, shape=(count, size, size, 4)
            )
            scenes = pool.map(
                partial(_painted, size=size), range(first, first + count), chunksize=16
            )
            for index, scene in enumerate(scenes):
                stored[index] = scene
                progress(1)
            stored.flush()
    return StoredScenes(path, first, count)


def _painted(seed: int, size: int) -> npt.NDArray[np.uint8]:
    scene = make_scene(seed, size, size)
    return np.dstack([scene.image, scene.instances.astype(np.uint8)])
